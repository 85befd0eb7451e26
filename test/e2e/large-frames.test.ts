/** Large frames of a socket, which are read in turn with those of other tenants: in their order, and none of them lost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startScene } from '../support/node.ts';
import { until } from '../support/until.ts';

const ENV = { ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '0', DEFAULT_TIER: 'enterprise' };
const context = { a: 'x'.repeat(200_000) };
const places = (count: number): readonly number[] => Array.from({ length: count }, (_, n) => n);

test('frames of a socket, large and small, are read in the order in which they came', async (t) => {
  const { chat } = await startScene(t, { env: ENV });
  const client = await chat('acme', 's1');
  const sent = places(12).map((n) => client.say(`Say ${n}.`, n % 3 === 0 ? { context } : {}));
  client.send({ type: 'nothing', padding: 'x'.repeat(100_000) });
  client.send({ type: 'ping' });
  await client.see('pong');
  const order = client.frames.map(({ type }) => type);
  assert.ok(order.indexOf('error') < order.indexOf('pong'));
  const accepted = () => client.frames.filter(({ type }) => type === 'chat.accepted');
  await until('the acceptances', () => accepted().length === sent.length);
  assert.deepEqual(
    accepted().map(({ task_id: task }) => task),
    sent,
  );
});

test('what a client said before it went is said, however large', async (t) => {
  const { chat, ask } = await startScene(t, { env: ENV });
  const leaving = await chat('acme', 's1');
  leaving.say('Read me.', { context });
  leaving.close();
  await until('the message', async () => {
    const { body } = await ask('/api/sessions/s1/messages');
    return JSON.stringify(body).includes('Read me.');
  });
});

test('a tenant that floods with large frames delays another by no more than a frame a turn of the loop', async (t) => {
  const { chat } = await startScene(t, { env: ENV });
  const loud = await Promise.all(places(20).map((n) => chat('loud', `s${n}`)));
  const quiet = await chat('quiet', 's1');
  const refused = { type: 'nothing', padding: 'x'.repeat(250_000) };
  const seen: string[] = [];
  const heard = [...loud.map((client) => [client, 'loud'] as const), [quiet, 'quiet'] as const].map(
    async ([client, name]) => {
      await client.see(({ type }) => type === 'error' || type === 'pong');
      seen.push(name);
    },
  );
  for (const client of loud) client.send(refused);
  quiet.send({ type: 'ping' });
  await Promise.all(heard);
  assert.ok(seen.indexOf('quiet') < loud.length, seen.join(' '));
  assert.equal(seen.length, loud.length + 1);
});
