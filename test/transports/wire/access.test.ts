/** Who gets in: open mode's headers, and real tokens in jwt mode. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose';
import {
  type Access,
  type AccessReply,
  type AccessSettings,
  type Credentials,
  createAccess,
  createOriginCheck,
  createProxyCheck,
  hasTokenInQuery,
  readBearer,
  type Scope,
} from '../../../transports/wire/access.ts';
import { listen } from '../../support/processes.ts';

const SECRET = 'a secret of at least thirty-two characters';
const NOW = Date.UTC(2025, 0, 1);
const clock = { now: () => NOW };
const key = new TextEncoder().encode(SECRET);

const settings = (more: Partial<AccessSettings> = {}): AccessSettings => ({
  mode: 'open',
  jwtSecret: undefined,
  jwksUrl: undefined,
  issuer: undefined,
  audience: undefined,
  ...more,
});

const ask = (
  headers: Record<string, string> = {},
  more: Partial<Omit<Credentials, 'header'>> = {},
): Credentials => ({
  bearer: undefined,
  header: (name) => headers[name],
  ...more,
});

const admitted = (reply: AccessReply) => {
  assert.ok(reply.ok, reply.ok ? '' : reply.error.message);
  return reply.admitted;
};

const code = (reply: AccessReply) => (reply.ok ? 'ok' : reply.error.code);

/** Seconds since the epoch, some minutes from now. */
const inMinutes = (minutes: number) => NOW / 1000 + minutes * 60;

const token = (
  claims: object = {},
  { exp = inMinutes(5), secret = key }: { exp?: number; secret?: Uint8Array } = {},
) =>
  new SignJWT({ tenant_id: 'acme', tier: 'free', sub: 'ann', scope: 'chat', ...claims })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(exp)
    .sign(secret);

const check = async (
  access: Access,
  bearer: string | undefined,
  needs: Scope = 'chat',
  headers = {},
  more = {},
) => access.check(ask(headers, { bearer, ...more }), needs);

const jwt = (more: Partial<AccessSettings> = {}) =>
  createAccess(settings({ mode: 'jwt', jwtSecret: SECRET, ...more }), clock);

// --- Open mode ---------------------------------------------------------------------------------------------

const open = createAccess(settings(), clock);
const openly = (headers: Record<string, string>, more: Partial<Credentials> = {}): AccessReply => {
  const reply = open.check(ask(headers, more), 'admin');
  assert.ok(!(reply instanceof Promise), 'open mode answers in the same tick');
  return reply;
};

test('open mode believes the headers, and every scope is there', () => {
  const reply = admitted(openly({ 'x-tenant-id': 'acme', 'x-tenant-tier': 'free', 'x-user-id': 'ann' }));
  assert.deepEqual(reply.caller, { tenantId: 'acme', tier: 'free', userId: 'ann' });
  assert.equal(reply.expiresAtMs, undefined);
  assert.equal(reply.scopes.size, 5);
});

test('open mode: the path names the tenant where no header does, and must not contradict it', () => {
  assert.deepEqual(admitted(openly({}, { tenantId: 'acme' })).caller, {
    tenantId: 'acme',
    tier: undefined,
    userId: undefined,
  });
  assert.ok(openly({ 'x-tenant-id': 'acme' }, { tenantId: 'acme' }).ok);
  assert.equal(code(openly({ 'x-tenant-id': 'other' }, { tenantId: 'acme' })), 'INVALID_REQUEST');
  assert.equal(
    code(openly({ 'x-tenant-tier': 'free' }, { tenantId: 'acme', tier: 'enterprise' })),
    'INVALID_REQUEST',
  );
  assert.equal(code(openly({ 'x-user-id': 'ann' }, { tenantId: 'acme', userId: 'bob' })), 'INVALID_REQUEST');
});

test('open mode refuses a missing tenant, unknown tiers and bad ids', () => {
  for (const headers of [
    {},
    { 'x-tenant-id': '' },
    { 'x-tenant-id': 'a b' },
    { 'x-tenant-id': 'x'.repeat(129) },
    { 'x-tenant-id': 'acme', 'x-tenant-tier': 'gold' },
    { 'x-tenant-id': 'acme', 'x-tenant-tier': 'Free' },
    { 'x-tenant-id': 'acme', 'x-user-id': 'a\u0007n' },
  ])
    assert.equal(code(openly(headers)), 'INVALID_REQUEST');
});

// --- JWT mode ----------------------------------------------------------------------------------------------

test('a signed token says who is asking', async () => {
  const reply = admitted(await check(jwt(), await token()));
  assert.deepEqual(reply.caller, { tenantId: 'acme', tier: 'free', userId: 'ann' });
  assert.deepEqual([...reply.scopes], ['chat']);
  assert.equal(reply.expiresAtMs, NOW + 5 * 60_000 + 5_000);
});

test('admin implies every scope; a missing scope is named', async () => {
  assert.ok((await check(jwt(), await token({ scope: 'admin' }), 'agents:write')).ok);
  const reply = await check(jwt(), await token({ scope: 'chat agents:read' }), 'metrics');
  assert.ok(!reply.ok);
  assert.equal(reply.error.code, 'FORBIDDEN');
  assert.match(reply.error.message, /metrics/);
  assert.equal(code(await check(jwt(), await token({ scope: undefined }))), 'FORBIDDEN');
});

test('headers and path may repeat the token and not contradict it', async () => {
  const bearer = await token();
  const same = { 'x-tenant-id': 'acme', 'x-tenant-tier': 'free', 'x-user-id': 'ann' };
  assert.ok((await check(jwt(), bearer, 'chat', same, { tenantId: 'acme', tier: 'free', userId: 'ann' })).ok);
  for (const [headers, more] of [
    [{ 'x-tenant-id': 'other' }, {}],
    [{ 'x-tenant-tier': 'enterprise' }, {}],
    [{ 'x-user-id': 'bob' }, {}],
    [{}, { tenantId: 'other' }],
    [{}, { tier: 'enterprise' }],
    [{}, { userId: 'bob' }],
    [{ 'x-tenant-id': 'acme' }, { tenantId: 'other' }],
  ])
    assert.equal(code(await check(jwt(), bearer, 'chat', headers, more)), 'FORBIDDEN');
});

test('tokens that prove nothing are refused, with a text that never shows them', async () => {
  const other = new TextEncoder().encode('another secret of at least thirty-two chars');
  const good = await token();
  const { privateKey } = await generateKeyPair('RS256');
  const cases: (string | undefined)[] = [
    undefined,
    '',
    'garbage',
    'a.b.c',
    'x'.repeat(10_000),
    `${good.slice(0, -3)}AAA`,
    await token({}, { secret: other }),
    await token({}, { exp: inMinutes(-1) }),
    await token({ tenant_id: undefined }),
    await token({ tenant_id: 'a b' }),
    await token({ tier: 'gold' }),
    new UnsecuredJWT({ tenant_id: 'acme', scope: 'admin' }).encode(),
    await new SignJWT({ tenant_id: 'acme', scope: 'chat' })
      .setProtectedHeader({ alg: 'HS512' })
      .sign(new TextEncoder().encode(SECRET.repeat(2))),
    await new SignJWT({ tenant_id: 'acme', scope: 'chat' })
      .setProtectedHeader({ alg: 'RS256' })
      .sign(privateKey),
  ];
  for (const bearer of cases) {
    const reply = await check(jwt(), bearer);
    assert.ok(!reply.ok);
    assert.equal(reply.error.code, 'UNAUTHENTICATED');
    if (bearer) assert.ok(!JSON.stringify(reply.error).includes(bearer));
  }
  assert.ok((await check(jwt(), await token({}, { exp: inMinutes(0) - 2 }))).ok, 'within the tolerance');
});

test('a subject is any text of 1 to 255 characters, and what the token names may be repeated', async () => {
  for (const sub of [
    'auth0|5f7c',
    'ann@example.com',
    'CN=Ann, O=Übung',
    'x'.repeat(255),
    '用户 7',
    '../etc',
  ]) {
    const reply = admitted(await check(jwt(), await token({ sub }), 'chat', { 'x-user-id': sub }));
    assert.equal(reply.caller.userId, sub);
  }
  for (const sub of ['', 'x'.repeat(256), 'a\u0000b', 'a\nb', 'a\ud800', 42, ['ann']])
    assert.equal(code(await check(jwt(), await token({ sub }))), 'UNAUTHENTICATED', JSON.stringify(sub));
  assert.equal(admitted(await check(jwt(), await token({ sub: null, tier: null }))).caller.userId, undefined);
});

test('scopes are a text of words, or a list of them', async () => {
  for (const scope of [
    'chat metrics',
    ['chat', 'metrics'],
    ['chat metrics'],
    ' chat\tmetrics ',
    ['chat', 'x', 'metrics'],
  ])
    assert.deepEqual(
      [...admitted(await check(jwt(), await token({ scope }))).scopes].sort(),
      ['chat', 'metrics'],
      JSON.stringify(scope),
    );
  for (const scope of [null, '', [], ['chatter'], 'chat,metrics'])
    assert.equal(code(await check(jwt(), await token({ scope }))), 'FORBIDDEN', JSON.stringify(scope));
  for (const scope of [7, [7], { chat: true }])
    assert.equal(code(await check(jwt(), await token({ scope }))), 'UNAUTHENTICATED', JSON.stringify(scope));
});

test('open mode refuses what a proxy sends on, unless the operator insists; tokens go through proxies', () => {
  const refused = createProxyCheck({ mode: 'open', allowInsecure: false });
  for (const name of [
    'x-forwarded-for',
    'x-forwarded-proto',
    'X-Forwarded-Host',
    'x-forwarded-client-cert',
    'forwarded',
    'x-real-ip',
    'via',
  ])
    assert.equal(refused(['host', name])?.code, 'FORBIDDEN', name);
  for (const name of ['x-forwarded', 'forwarded-by', 'x-tenant-id', 'host', 'x-request-id'])
    assert.equal(refused([name]), undefined, name);
  assert.equal(createProxyCheck({ mode: 'open', allowInsecure: true })(['forwarded']), undefined);
  assert.equal(createProxyCheck({ mode: 'jwt', allowInsecure: false })(['forwarded']), undefined);
});

test('issuer and audience are checked where they are set', async () => {
  const access = jwt({ issuer: 'https://idp', audience: 'nooble' });
  assert.ok((await check(access, await token({ iss: 'https://idp', aud: 'nooble' }))).ok);
  assert.equal(
    code(await check(access, await token({ iss: 'https://evil', aud: 'nooble' }))),
    'UNAUTHENTICATED',
  );
  assert.equal(
    code(await check(access, await token({ iss: 'https://idp', aud: 'other' }))),
    'UNAUTHENTICATED',
  );
  assert.equal(code(await check(access, await token())), 'UNAUTHENTICATED');
});

test('published keys check RS256 and ES256, and never a token signed with their text', async () => {
  const rsa = await generateKeyPair('RS256');
  const ec = await generateKeyPair('ES256');
  const keys = [
    { ...(await exportJWK(rsa.publicKey)), kid: 'r', alg: 'RS256' },
    { ...(await exportJWK(ec.publicKey)), kid: 'e', alg: 'ES256' },
  ];
  let answer = 200;
  const server = createServer((_, res) => {
    res.writeHead(answer, { 'content-type': 'application/json', connection: 'close' });
    res.end(JSON.stringify({ keys }));
  });
  const port = await listen(server);
  const published = () =>
    createAccess(settings({ mode: 'jwt', jwksUrl: `http://127.0.0.1:${port}/jwks.json` }), clock);
  const sign = (alg: string, kid: string, by: Parameters<SignJWT['sign']>[0]) =>
    new SignJWT({ tenant_id: 'acme', scope: 'chat' })
      .setProtectedHeader({ alg, kid })
      .setExpirationTime(inMinutes(5))
      .sign(by);

  const access = published();
  assert.ok((await check(access, await sign('RS256', 'r', rsa.privateKey))).ok);
  assert.ok((await check(access, await sign('ES256', 'e', ec.privateKey))).ok);
  assert.equal(code(await check(access, await sign('HS256', 'r', key))), 'UNAUTHENTICATED');
  assert.equal(code(await check(access, await sign('RS256', 'unknown', rsa.privateKey))), 'UNAUTHENTICATED');

  answer = 500;
  assert.equal(
    code(await check(published(), await sign('RS256', 'r', rsa.privateKey))),
    'TRANSPORT_UNAVAILABLE',
  );
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
  assert.equal(
    code(await check(published(), await sign('RS256', 'r', rsa.privateKey))),
    'TRANSPORT_UNAVAILABLE',
  );
});

test('jwt mode reads the headers before it waits', async () => {
  let gone = false;
  const reply = jwt().check(
    {
      bearer: await token(),
      header: () => {
        assert.equal(gone, false);
        return undefined;
      },
    },
    'chat',
  );
  gone = true;
  assert.ok((await reply).ok);
});

test('jwt mode without any key is a mistake of the set-up', () => {
  assert.throws(() => createAccess(settings({ mode: 'jwt' }), clock), /AUTH_JWT_SECRET/);
});

test('one origin rule: case, default ports and a trailing slash make no difference', () => {
  const listed = createOriginCheck([
    'https://App.Example/',
    'HTTP://localhost:80',
    'tauri://localhost',
    'null',
  ]);
  for (const origin of [
    'https://app.example',
    'HTTPS://APP.example:443',
    'https://app.example/',
    'http://localhost',
    'http://LOCALHOST:80',
    'tauri://localhost',
    'null',
  ])
    assert.equal(listed(origin, 'node'), true, origin);
  for (const origin of [
    'http://app.example',
    'https://app.example:8443',
    'https://app.example.evil',
    'https://app.example/path',
    'https://x@app.example',
    'https://app.example, https://evil',
    'http://localhost:8080',
  ])
    assert.equal(listed(origin, 'app.example'), false, origin);
});

test('without a list a page of the same host and port is let in, by whichever scheme it was reached', () => {
  const own = createOriginCheck([]);
  for (const [origin, host] of [
    ['http://node.example', 'node.example'],
    ['https://node.example', 'Node.Example'],
    ['https://node.example:443', 'node.example'],
    ['https://node.example', 'node.example:443'],
    ['HTTP://node.example', 'node.example:80'],
    ['http://localhost:8000', 'LOCALHOST:8000'],
    ['http://[::1]:8000', '[::1]:8000'],
    ['', 'node.example'],
  ] as const)
    assert.equal(own(origin, host), true, `${origin} at ${host}`);
  for (const [origin, host] of [
    ['http://node.example', 'node.example:443'],
    ['http://node.example:8000', 'node.example:8001'],
    ['http://node.example', ''],
    ['null', 'null'],
    ['http://node.example/x', 'node.example'],
    ['http://evil@node.example', 'node.example'],
    ['http://node.example', 'node.example/x'],
    ['ftp://node.example', 'node.example'],
    ['http://evil.example', 'node.example'],
  ] as const)
    assert.equal(own(origin, host), false, `${origin} at ${host}`);
});

test('a token in the address is seen under every name that people give it', () => {
  for (const query of [
    'token=x',
    'access_token=x',
    'Access-Token=x',
    'jwt=',
    '%6Awt=x',
    'bearer=x',
    'authorization=Bearer%20x',
    'a=1&api_key=x',
    'X-Api-Key=x',
    'auth[token]=x',
    'service_token=x',
    'id_token=x',
    'KEY=x',
    'client-secret=x',
  ])
    assert.equal(hasTokenInQuery(new URLSearchParams(query)), true, query);
  for (const query of [
    '',
    'q=token',
    'tag=jwt',
    'tokens=3',
    'page=1&page_size=2',
    'before=authorization',
    'keys=1',
    'agent_id=a&last_seq=1&epoch=e&tier=free&user_id=u&delta_window_ms=0&reasoning=1',
  ])
    assert.equal(hasTokenInQuery(new URLSearchParams(query)), false, query);
});

test('one reader of bearer tokens', () => {
  for (const header of ['Bearer abc', 'bearer abc', 'BEARER   abc  '])
    assert.equal(readBearer(header), 'abc');
  for (const header of [undefined, '', 'Bearer', 'Bearer ', 'Basic abc', 'Bearer a b', 'xBearer abc'])
    assert.equal(readBearer(header), undefined, header);
});
