/** `nooble dead`: dead actions of a real Redis, listed, sent anew and dropped. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { runCli } from '../../src/cli/cli.ts';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import { managementQueue, tierSubscription } from '../../src/domain/queues.ts';
import { openDeadLetters } from '../../transports/queue/redis/dead-letters.ts';
import { MAX_ACTION_BYTES } from '../../transports/wire/codec.ts';
import { leakFree } from '../support/leaks.ts';
import { quiet } from '../support/quiet.ts';
import { redisFor, transportFor } from '../support/redis-node.ts';
import { action, collecting, queue } from '../support/transport.ts';
import { until } from '../support/until.ts';

const WORK = queue('execution_service:free:default');
const TASKS = managementQueue('tasks', 'umbrella');

async function nooble(words: readonly string[], environment: Readonly<Record<string, string>> = {}) {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runCli(['dead', ...words], {
    environment,
    out: (line) => out.push(line),
    err: (line) => err.push(line),
    openStores: () => Promise.reject(new Error('no store is needed')),
    askRedis: () => Promise.reject(new Error('nobody is asked')),
    askModel: () => Promise.reject(new Error('nobody is asked')),
    openDead: (url) => openDeadLetters(url, quiet),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

/** A Redis with dead: three actions and two bodies that are none on WORK, and a task without an envelope on TASKS. */
async function withDead(t: TestContext) {
  const redis = await redisFor(t);
  const transport = await transportFor(t, redis.url);
  let broken = true;
  const heard = collecting(async () => {
    if (broken) throw new RefusalError(refusal('MODEL_ERROR', { message: 'It said\u001b[2J no.' }));
  });
  const lanes = [tierSubscription(WORK, 'free'), tierSubscription(TASKS, 'free')];
  await transport.consume(lanes, heard.listener, { credits: 1 });
  const died = async (name: typeof WORK, count: number) =>
    until('the dead', async () => (await transport.dead.list(name, 99)).length === count);
  for (const n of [1, 2, 3]) {
    const secret = { n, message: 'secret of a conversation' };
    await transport.send(WORK, action(n, { data: secret }), n === 2 ? 'msgpack' : 'json');
    await died(WORK, n);
  }
  await redis.client.lpush(WORK, 'not an action');
  await redis.client.lpush(WORK, Buffer.alloc(MAX_ACTION_BYTES + 1, '{'));
  await died(WORK, 5);
  await redis.client.lpush(TASKS, '{"type":"agent_create","tenant_id":"umbrella"}');
  await died(TASKS, 1);
  const mend = (): void => {
    broken = false;
  };
  const run = (...words: string[]) => nooble(words, { REDIS_URL: redis.url });
  return { redis, transport, heard, mend, run };
}

test('what is dead is listed with all but its text', async (t) => {
  const { run, transport } = await withDead(t);
  const { code, out, err } = await run('list');
  assert.deepEqual([code, err], [0, '']);
  const lines = out.split('\n');
  assert.match(lines[0] ?? '', /^QUEUE +ID +DIED +CODE +TYPE +TENANT +BYTES +REASON$/);
  assert.equal(lines.length, 7);
  assert.match(
    lines[1] ?? '',
    /^agent-management\.tasks\.umbrella .*INVALID_REQUEST +agent_create +umbrella/,
  );
  assert.match(lines[2] ?? '', /\(unreadable\) +4194305 \(cut\)/);
  assert.match(lines[3] ?? '', /INVALID_REQUEST +\(unreadable\)/);
  for (const line of lines.slice(4))
    assert.match(
      line,
      /:default +[0-9a-f-]{36} +20\S+Z +MODEL_ERROR +test\.count +acme +\d+ +It said�\[2J no\.$/,
    );
  assert.ok(!out.includes('secret') && !out.includes('\u001b'));

  const one = await run('list', `${WORK}:dead`, '--limit', '1');
  assert.deepEqual([one.out.split('\n').length, one.err.includes('--limit')], [2, true]);
  const all = JSON.parse((await run('list', WORK, '--json')).out);
  assert.deepEqual(all, await transport.dead.list(WORK, 99));
  assert.match((await run('list', 'elsewhere')).out, /^Nothing is dead in elsewhere\.$/);
});

test('one is sent anew or dropped by its id, or all, and what is cut stays', async (t) => {
  const { run, transport, heard, mend } = await withDead(t);
  mend();
  const ids = (await transport.dead.list(WORK, 99)).map(({ id }) => id);
  const before = heard.deliveries.length;
  const one = await run('replay', WORK, ids[4] ?? '');
  assert.deepEqual([one.code, one.out], [0, `${WORK}: 1 sent anew`]);
  await heard.heard(before + 1);
  const cut = await run('replay', WORK, ids[0] ?? '');
  assert.deepEqual([cut.code, /only be dropped/.test(cut.err)], [1, true]);
  assert.equal((await run('drop', WORK, ids[3] ?? '')).out, `${WORK}: 1 dropped`);
  const gone = await run('drop', WORK, ids[3] ?? '');
  assert.deepEqual([gone.code, /There is no dead action/.test(gone.err)], [1, true]);
  assert.equal((await run('replay', WORK, '--all')).out, `${WORK}: 2 sent anew`);
  await heard.heard(before + 2);
  assert.deepEqual(heard.numbers().slice(before), [1, 3]);

  await until(
    'the unreadable one to be dead again',
    async () => (await transport.dead.list(WORK, 9)).length === 2,
  );
  assert.equal((await run('drop', WORK, '--all')).out, `${WORK}: 2 dropped`);
  assert.equal((await run('drop', TASKS, '--all')).code, 0);
  assert.equal((await run('list')).out, 'Nothing is dead.');
});

test('misuse is 2, and touches nothing', async (t) => {
  leakFree(t);
  const all: readonly (readonly string[])[] = [
    [],
    ['bury'],
    ['list', 'a', 'b'],
    ['list', '--all'],
    ['list', '--limit', '0'],
    ['list', '--limit', '9999999'],
    ['list', 'no queue'],
    ['replay'],
    ['replay', WORK],
    ['drop', WORK],
    ['drop', WORK, 'id', '--all'],
    ['drop', WORK, 'id', 'more'],
    ['drop', '--all'],
    ['drop', WORK, 'id', '--json'],
  ];
  for (const words of all) {
    const { code, out, err } = await nooble(words, { REDIS_URL: 'redis://127.0.0.1:1' });
    assert.deepEqual([code, out], [2, ''], words.join(' '));
    assert.match(err, /nooble help/, words.join(' '));
  }
});

test('without a Redis, or with one that does not answer, it says what to do, and no password', async (t) => {
  leakFree(t);
  const none = await nooble(['list']);
  assert.deepEqual([none.code, /set REDIS_URL/.test(none.err)], [2, true]);
  for (const url of ['redis://:hush@127.0.0.1:1', 'redis+sentinel://:hush@127.0.0.1:1,127.0.0.1:1']) {
    const away = await nooble(['list'], { REDIS_URL: url });
    assert.equal(away.code === 0, false);
    assert.match(away.err, /REDIS_URL/);
    assert.ok(!away.err.includes('hush'), away.err);
  }
});
