/** Who gets a socket: paths, caps, origins, subprotocols, tokens, and what each refusal looks like. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { portPerTest } from '../../support/chat-port.ts';
import { type TokenOptions, token as tokenOf } from '../../support/tokens.ts';
import { type ConnectOptions, connect, HandshakeRefused } from '../../support/websocket-client.ts';

const open = portPerTest();

/** The HTTP refusal that a handshake gets. */
async function refused(url: string, options?: ConnectOptions) {
  const error: unknown = await connect(url, options).then(
    () => assert.fail('was admitted'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof HandshakeRefused, String(error));
  const body = JSON.parse(error.body).error;
  assert.equal(typeof body.request_id, 'string');
  return { status: error.status, code: body.code, message: body.message, headers: error.headers, body };
}

test('bad paths are upgraded, told why, and closed with 4400', async () => {
  const { url, directory, closeCodes } = await open();
  const bad = [
    '/ws/acme/a%20b',
    '/ws/ac%2Fme/s1',
    '/ws/acme/%zz',
    `/ws/acme/${'x'.repeat(129)}`,
    '/ws/acme/s1?tier=gold',
    '/ws/acme/s1?agent_id=a%20b',
    '/ws/acme/s1?user_id=%00',
    '/ws/acme/s1?last_seq=-1',
    '/ws/acme/s1?last_seq=1.5',
    '/ws/acme/s1?last_seq=abc',
    '/ws/acme/s1?last_seq=99999999999999999999',
    `/ws/acme/s1?last_seq=1&epoch=${'e'.repeat(129)}`,
    '/ws/acme/s1?delta_window_ms=5000',
    '/ws/acme/s1?lastseq=1',
    '/ws/acme/s1?agent-id=a1',
    '/ws/acme/.',
    '/ws/acme/%2e%2E',
    '/ws/acme',
    '/ws/acme/',
    '/ws/acme//',
    '/ws/acme/s1/more',
    '/ws//s1',
    '/ws/task_updates/',
  ];
  for (const path of bad) {
    const client = await connect(url + path);
    assert.equal((await client.closed).code, 4400, path);
    assert.equal(client.frames[0]?.data.code, 'INVALID_REQUEST');
  }
  const contradicting = await connect(`${url}/ws/acme/s1`, { headers: { 'X-Tenant-ID': 'other' } });
  assert.equal((await contradicting.closed).code, 4400);
  assert.equal(directory.attached.length, 0);
  assert.deepEqual([...new Set(closeCodes)], [4400]);
});

test('a slash at the end of a path is no part of the session, and empty parameters are absent', async () => {
  const { url, directory } = await open();
  for (const path of ['/ws/acme/s1/', '/ws/acme/s1/?agent_id=', '/ws/acme/s1?last_seq=&epoch=']) {
    const client = await connect(url + path);
    await client.next('session.ready');
  }
  assert.deepEqual(new Set(directory.attached.map(({ sessionId }) => sessionId)), new Set(['s1']));
});

test('the first known subprotocol of the client is echoed, and never a token', async () => {
  const { url } = await open();
  const cases: [string[] | undefined, string][] = [
    [undefined, ''],
    [['nooble'], 'nooble'],
    [['nooble.msgpack'], 'nooble.msgpack'],
    [['graphql', 'nooble'], 'nooble'],
    [['nooble', 'nooble.msgpack'], 'nooble'],
    [['nooble', 'bearer.abc'], 'nooble'],
    [['bearer.abc', 'nooble.msgpack'], 'nooble.msgpack'],
    [['graphql-ws'], ''],
    [['bearer.abc'], ''],
  ];
  for (const [protocols, echoed] of cases) {
    const client = await connect(`${url}/ws/acme/s1`, protocols ? { protocols } : {});
    assert.equal(client.protocol, echoed);
    await client.next('session.ready');
  }
});

test("Node's own WebSocket gets along with it", async () => {
  const { url } = await open();
  const socket = new WebSocket(`${url}/ws/acme/s1`, ['nooble']);
  const first = await new Promise<MessageEvent>((resolve, reject) => {
    socket.addEventListener('message', resolve, { once: true });
    socket.addEventListener('error', reject, { once: true });
  });
  assert.equal(JSON.parse(String(first.data)).type, 'session.ready');
  assert.equal(socket.protocol, 'nooble');
  const closed = new Promise((resolve) => socket.addEventListener('close', resolve, { once: true }));
  socket.close(1000);
  await closed;
});

test('pages of the same host may connect, others not', async () => {
  const { url } = await open();
  const { host } = new URL(url);
  await connect(`${url}/ws/acme/s1`);
  await connect(`${url}/ws/acme/s1`, { headers: { Origin: `http://${host}` } });
  await connect(`${url}/ws/acme/s1`, { headers: { Origin: `https://${host}` } });
  for (const origin of ['https://evil.example', 'null', `http://${host}.evil.example`, `http://x@${host}`]) {
    const reply = await refused(`${url}/ws/acme/s1`, { headers: { Origin: origin } });
    assert.deepEqual([reply.status, reply.code], [403, 'FORBIDDEN']);
  }
});

test('the own host is told by Host alone, and a default port is none', async () => {
  const { url } = await open();
  const from = (headers: Record<string, string>) => ({ headers });
  for (const [origin, host] of [
    ['https://Node.example', 'node.example'],
    ['https://node.example:443', 'NODE.example'],
    ['http://node.example:80', 'node.example'],
    ['http://[::1]', '[::1]:80'],
  ] as const)
    await connect(`${url}/ws/acme/s1`, from({ Origin: origin, Host: host }));
  for (const [origin, host] of [
    ['https://node.example/path', 'node.example'],
    ['https://node.example:8443', 'node.example'],
    ['null', 'null'],
  ] as const)
    assert.equal((await refused(`${url}/ws/acme/s1`, from({ Origin: origin, Host: host }))).status, 403);
  const forwarded = from({ Origin: 'https://evil.example', 'X-Forwarded-Host': 'evil.example' });
  assert.equal((await refused(`${url}/ws/acme/s1`, forwarded)).status, 403);
});

test('a list of origins replaces the rule, and a star lifts it', async () => {
  const { url, close, directory } = await open({
    origins: ['https://App.example/', 'http://localhost:3000'],
  });
  await connect(`${url}/ws/acme/s1`, { headers: { Origin: 'https://app.example' } });
  await connect(`${url}/ws/acme/s1`, { headers: { Origin: 'http://localhost:3000' } });
  await connect(`${url}/ws/acme/s1`);
  const same = { headers: { Origin: `http://${new URL(url).host}` } };
  assert.equal((await refused(`${url}/ws/acme/s1`, same)).status, 403);
  close();
  await directory.detachedClients(3);
  const all = await open({ origins: ['*'] });
  await connect(`${all.url}/ws/acme/s1`, { headers: { Origin: 'https://anyone.example' } });
});

test('a tenant over its cap is closed with 4429 and gets a place again when one is free', async () => {
  const { url, directory, chat } = await open({ freeSockets: 2 });
  const first = await connect(`${url}/ws/acme/s1?tier=free`);
  await connect(`${url}/ws/acme/s2?tier=free`);
  const third = await connect(`${url}/ws/acme/s3?tier=free`);
  assert.equal((await third.closed).code, 4429);
  assert.equal(third.frames[0]?.type, 'error');
  await (await connect(`${url}/ws/other/s1?tier=free`)).next('session.ready');
  await first.close();
  await directory.detachedClients(1);
  await (await connect(`${url}/ws/acme/s3?tier=free`)).next('session.ready');
  assert.equal(chat.count(), 3);
});

test('a client that the directory closes at once keeps no place', async () => {
  const { url, directory, chat } = await open({ freeSockets: 1 });
  directory.onAttach = (client) => client.close({ code: 1013, reason: 'overloaded' });
  for (let n = 1; n <= 3; n += 1) {
    assert.equal((await (await connect(`${url}/ws/acme/s1?tier=free`)).closed).code, 1013);
    await directory.detachedClients(n);
  }
  assert.equal(chat.stats().tenants, 0);
});

test('a node that is full, or draining, says so before the upgrade', async () => {
  const { url, state } = await open({ sockets: { max: 1 } });
  await (await connect(`${url}/ws/acme/s1`)).next('session.ready');
  const full = await refused(`${url}/ws/acme/s2`, { headers: { 'X-Request-ID': 'req-1' } });
  assert.deepEqual([full.status, full.code, full.body.request_id], [503, 'OVERLOADED', 'req-1']);
  assert.ok(full.headers.has('retry-after'));
  state.draining = true;
  const draining = await refused(`${url}/ws/acme/s2`, { headers: { 'X-Request-ID': 'no good' } });
  assert.deepEqual([draining.status, draining.code], [503, 'DRAINING']);
  assert.notEqual(draining.body.request_id, 'no good');
});

test('a token in the address is refused in any mode, with a text that says where it belongs', async () => {
  const { url, logged } = await open();
  for (const name of ['token', 'access_token', 'bearer', 'jwt', 'id_token', 'API-Key', '%6Awt']) {
    const reply = await refused(`${url}/ws/acme/s1?${name}=canary`);
    assert.deepEqual([reply.status, reply.code], [401, 'UNAUTHENTICATED']);
    assert.match(reply.message, /Authorization: Bearer/);
    assert.doesNotMatch(JSON.stringify(reply.body) + logged(), /canary/);
  }
});

// --- Tokens ------------------------------------------------------------------------------------------------

const jwt = { mode: 'jwt' } as const;

const token = (more: TokenOptions = {}, tenant = 'acme') =>
  tokenOf(tenant, { tier: 'free', user: 'ann', ...more });

test('a token travels in the header or as a subprotocol', async () => {
  const { url, directory } = await open(jwt);
  const bearer = await token();
  await (await connect(`${url}/ws/acme/s1`, { headers: { Authorization: `Bearer ${bearer}` } })).next();
  const client = await connect(`${url}/ws/acme/s1`, { protocols: ['nooble.msgpack', `bearer.${bearer}`] });
  assert.equal(client.protocol, 'nooble.msgpack');
  await client.next('session.ready');
  assert.deepEqual(directory.attached[1]?.caller, { tenantId: 'acme', tier: 'free', userId: 'ann' });
});

test('bad tokens get 401 and wrong ones 403 before the upgrade, and are never shown', async () => {
  const { url, logged, directory } = await open(jwt);
  const expired = await token({ expiresInS: -60 });
  const foreign = await token({}, 'other');
  const narrow = await token({ scope: 'metrics' });
  const with_ = (bearer: string) => ({ headers: { Authorization: `Bearer ${bearer}` } });
  const cases: [string, ConnectOptions | undefined, number][] = [
    ['/ws/acme/s1', undefined, 401],
    ['/ws/acme/s1', with_('garbage'), 401],
    ['/ws/acme/s1', { headers: { Authorization: 'Basic abc' } }, 401],
    ['/ws/acme/s1', { protocols: ['nooble', 'bearer.a.b.c'] }, 401],
    ['/ws/acme/s1', with_(expired), 401],
    ['/ws/acme/s1', with_(foreign), 403],
    ['/ws/acme/s1', with_(narrow), 403],
    ['/ws/acme/s1?tier=enterprise', with_(await token()), 403],
    ['/ws/acme/s1?user_id=bob', with_(await token()), 403],
    [`/ws/acme/s1?token=${await token()}`, undefined, 401],
  ];
  for (const [path, options, status] of cases) {
    const reply = await refused(url + path, options);
    assert.equal(reply.status, status, `${path} ${reply.message}`);
    for (const secret of [expired, foreign, narrow])
      assert.ok(!JSON.stringify(reply.body).includes(secret) && !logged().includes(secret));
  }
  assert.equal(directory.attached.length, 0);
});

test('a live socket is closed with 4401 when its token expires', async () => {
  const { url, state } = await open({ ...jwt, sockets: { pingIntervalMs: 40, pingTimeoutMs: 5_000 } });
  const headers = { Authorization: `Bearer ${await token({ expiresInS: 60 })}` };
  const client = await connect(`${url}/ws/acme/s1`, { headers });
  const longer = await connect(`${url}/ws/acme/s1`, {
    headers: { Authorization: `Bearer ${await token({ expiresInS: 600 })}` },
  });
  await client.next('session.ready');
  const start = Date.now();
  state.now = () => start + 70_000;
  assert.equal((await client.closed).code, 4401);
  longer.send({ type: 'ping' });
  await longer.next('pong');
});

test('three hundred handshakes at once with tokens all come through', async () => {
  const { url, chat, directory } = await open(jwt);
  const headers = { Authorization: `Bearer ${await token({ tier: 'enterprise' })}` };
  const clients = await Promise.all(
    Array.from({ length: 300 }, (_, n) => connect(`${url}/ws/acme/s${n}`, { headers })),
  );
  await Promise.all(
    clients.map((client) => {
      client.send({ type: 'ping' });
      return client.next('pong');
    }),
  );
  assert.equal(chat.count(), 300);
  for (const client of clients) client.destroy();
  await directory.detachedClients(300);
});

test('clients that leave during the check do no harm', async () => {
  const { url, chat } = await open(jwt);
  const headers = { Authorization: `Bearer ${await token()}` };
  const leaving = Array.from({ length: 50 }, async () => {
    const { hostname, port: number } = new URL(url);
    const { connect: tcp } = await import('node:net');
    const socket = tcp({ host: hostname, port: Number(number) });
    await new Promise((resolve) => socket.once('connect', resolve));
    socket.write(
      `GET /ws/acme/s1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${'A'.repeat(22)}==\r\nSec-WebSocket-Version: 13\r\nAuthorization: ${headers.Authorization}\r\n\r\n`,
    );
    socket.resetAndDestroy();
  });
  await Promise.all(leaving);
  const client = await connect(`${url}/ws/acme/s1`, { headers });
  await client.next('session.ready');
  assert.ok(chat.count() >= 1);
});
