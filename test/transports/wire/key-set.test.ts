/** Published keys over a real endpoint that rotates, fails, and falls silent. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { type TestContext, test } from 'node:test';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { createAccess } from '../../../transports/wire/access.ts';
import { listen } from '../../support/processes.ts';

const MINUTE = 60_000;

async function published(t: TestContext) {
  const signers = new Map<string, Parameters<SignJWT['sign']>[0]>();
  const keys: object[] = [];
  let asked = 0;
  let answer = (res: ServerResponse): void => void res.end(JSON.stringify({ keys }));
  const server = createServer((_, res) => {
    asked += 1;
    res.setHeader('connection', 'close');
    answer(res);
  });
  const port = await listen(server);
  t.after(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  });
  let nowMs = Date.UTC(2026, 0, 1);
  const clock = { now: () => nowMs };
  const jwksUrl = `http://127.0.0.1:${port}/keys`;
  const access = createAccess(
    { mode: 'jwt', jwtSecret: undefined, jwksUrl, issuer: undefined, audience: undefined },
    clock,
  );
  return {
    asked: () => asked,
    pass: (ms: number) => {
      nowMs += ms;
    },
    answerWith: (how: typeof answer) => {
      answer = how;
    },
    good: (res: ServerResponse): void => void res.end(JSON.stringify({ keys })),
    /** Makes a key; it is published unless said otherwise. */
    async key(kid: string, { shown = true } = {}) {
      const pair = await generateKeyPair('ES256');
      signers.set(kid, pair.privateKey);
      if (shown) keys.push({ ...(await exportJWK(pair.publicKey)), kid, alg: 'ES256' });
    },
    drop: (at: number) => keys.splice(at, 1),
    async check(kid: string) {
      const signer = signers.get(kid) ?? assert.fail();
      const bearer = await new SignJWT({ tenant_id: 'acme', scope: ['chat'], sub: 'auth0|5f7c' })
        .setProtectedHeader({ alg: 'ES256', kid })
        .setExpirationTime(nowMs / 1000 + 300)
        .sign(signer);
      const reply = await access.check({ bearer, header: () => undefined }, 'chat');
      return reply.ok ? 'ok' : reply.error.code;
    },
  };
}

for (const [name, away] of [
  ['refuses', (res: ServerResponse) => void res.writeHead(500).end()],
  ['breaks off', (res: ServerResponse) => void res.destroy()],
  ['answers a web page', (res: ServerResponse) => void res.end('<html>')],
  ['publishes nothing', (res: ServerResponse) => void res.end('{"keys":[]}')],
] as const)
  test(`while the endpoint ${name}, known keys go on; an unknown one can not be judged`, async (t) => {
    const set = await published(t);
    await set.key('one');
    await set.key('two', { shown: false });
    assert.equal(await set.check('one'), 'ok');
    set.answerWith(away);
    for (let minute = 0; minute < 15; minute += 1) {
      set.pass(MINUTE);
      assert.equal(await set.check('one'), 'ok');
    }
    assert.equal(await set.check('two'), 'TRANSPORT_UNAVAILABLE');
    set.answerWith(set.good);
    set.pass(MINUTE);
    assert.equal(await set.check('two'), 'UNAUTHENTICATED');
    assert.equal(await set.check('one'), 'ok');
  });

test('an endpoint that says nothing is asked once in 30 s, and only its first askers wait', async (t) => {
  const set = await published(t);
  await set.key('one');
  await set.key('two');
  assert.equal(await set.check('one'), 'ok');
  assert.equal(set.asked(), 1);
  await set.key('late');
  set.answerWith(() => {});
  set.pass(11 * MINUTE);
  assert.equal(await set.check('one'), 'ok', 'a known key waits for nobody');
  const first = await Promise.all([set.check('late'), set.check('late'), set.check('two')]);
  assert.deepEqual(first, ['TRANSPORT_UNAVAILABLE', 'TRANSPORT_UNAVAILABLE', 'ok']);
  assert.equal(set.asked(), 2);
  for (let tries = 0; tries < 20; tries += 1) {
    set.pass(1_000);
    assert.equal(await set.check('late'), 'TRANSPORT_UNAVAILABLE');
    assert.equal(await set.check('one'), 'ok');
  }
  assert.equal(set.asked(), 2);
  set.answerWith(set.good);
  set.pass(11_000);
  assert.equal(await set.check('late'), 'ok');
  assert.equal(set.asked(), 3);
});

test('a new key is known at once, a withdrawn one no longer after a while, and invented names cost few fetches', async (t) => {
  const set = await published(t);
  await set.key('one');
  await set.key('stranger', { shown: false });
  assert.equal(await set.check('one'), 'ok');
  for (const kid of ['two', 'three']) {
    set.pass(10_000);
    await set.key(kid);
    assert.equal(await set.check(kid), 'ok');
  }
  assert.equal(set.asked(), 3);
  set.pass(MINUTE);
  const before = set.asked();
  for (let tries = 0; tries < 30; tries += 1) assert.equal(await set.check('stranger'), 'UNAUTHENTICATED');
  assert.ok(set.asked() - before <= 5, `${set.asked() - before} fetches`);
  set.pass(10_000);
  await set.key('four');
  assert.equal(await set.check('four'), 'ok');
  set.drop(0);
  set.pass(11 * MINUTE);
  await set.check('four');
  while ((await set.check('one')) === 'ok') set.pass(1_000);
  assert.equal(await set.check('four'), 'ok');
});
