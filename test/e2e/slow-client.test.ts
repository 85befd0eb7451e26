/** A client that does not read costs a bounded amount of memory, harms nobody, and may come back for the rest. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate as nextLoopTurn } from 'node:timers/promises';
import { type Chatter, deltas, last, numbered } from '../support/chatter.ts';
import { startScene } from '../support/node.ts';
import { type Scenario, say } from '../support/stub-model.ts';

const PART = 'x'.repeat(32 * 1024);
/** Parts of one answer: 480 KiB, a little less than an enterprise tenant may have. */
const PARTS = 15;
const ANSWER = PART.repeat(PARTS);
const TURNS = 20;
const MIB = 1024 * 1024;
const ENV = { DEFAULT_TIER: 'enterprise', DELTA_WINDOW_MS: '0' };

/** Answers with many large parts; before each it waits for its reader, or for nothing but the next loop turn. */
const flood =
  (paced: () => Promise<unknown>): Scenario =>
  async (reply) => {
    for (let part = 0; part < PARTS; part += 1) {
      reply.delta({ content: PART });
      await paced();
    }
    reply.finish('stop');
    reply.usage(100);
    reply.done();
  };

/** Resolves as soon as the client has read all but the last parts of what was said to it so far. */
function reading(client: Chatter): () => Promise<unknown> {
  let said = 0;
  return () => {
    said += PART.length;
    let read = 4 * PART.length;
    return client.see(({ type, data }) => {
      if (type === 'chat.delta') read += data.content.length;
      return read >= said;
    });
  };
}

/** Two clients of a session that is flooded by some turns: one has not read until it was too slow, the other reads. */
async function flooded(t: TestContext) {
  const scene = await startScene(t, { env: ENV });
  const { stub, chat, line } = scene;
  const [slow, healthy] = [await chat('acme', 's1'), await chat('acme', 's1')];
  const paced = reading(healthy);
  stub.byDefault(() => flood(paced));
  slow.pause();
  const tasks = Array.from({ length: TURNS }, () => healthy.say('Go.'));
  await line('client too slow');
  return { ...scene, slow, healthy, tasks };
}

test('a client that stops reading is closed with 4408 once it reads again, and then resumes', async (t) => {
  const { stub, chat, ask, slow, healthy, tasks } = await flooded(t);
  for (const end of await Promise.all(tasks.map(healthy.ended))) assert.equal(end.data.content, ANSWER);
  for (const task of tasks) assert.equal(deltas(healthy.of(task)), ANSWER);

  slow.resume();
  assert.equal((await slow.closed).code, 4408);
  const [seen, all] = [numbered(slow.frames), numbered(healthy.frames)];
  assert.deepEqual(seen, all.slice(0, seen.length), 'there is a hole in what came');
  assert.ok(seen.length < all.length);

  const epoch = slow.frames.find(({ type }) => type === 'session.ready')?.data.epoch;
  const resume = (seq: number | undefined) => chat('acme', 's1', { query: { last_seq: String(seq), epoch } });
  const back = await resume(seen.at(-1)?.seq);
  const snapshot = await back.see('session.snapshot');
  assert.equal(back.frames[0]?.data.recovered, false, 'so much is not kept for replay');
  assert.equal(snapshot.data.messages.length, 2 * TURNS);
  const nearly = await resume(all.at(-2)?.seq);
  await nearly.see('chat.response');
  assert.deepEqual(numbered(nearly.frames), all.slice(-1));
  stub.byDefault(() => say('Yes.'));
  last(await back.turn('Still there?'), 'chat.response');
  assert.equal((await ask('/ws/stats')).body.too_slow, 1);
});

test('a client that never reads again is cut off', async (t) => {
  const { ask, healthy, tasks } = await flooded(t);
  await Promise.all(tasks.map(healthy.ended));
  while ((await ask('/ws/stats')).body.sockets > 1);
  assert.equal((await healthy.turn('And on.')).at(-1)?.type, 'chat.response');
});

test('forty clients that do not read cost little memory, and the turns go on', async (t) => {
  const { stub, chat, ask } = await startScene(t, { env: ENV });
  for (let clients = 0; clients < 40; clients += 1) (await chat('acme', 's1')).pause();
  stub.byDefault(() => flood(nextLoopTurn));
  const before = process.memoryUsage.rss();
  let most = 0;
  for (let turns = 0; turns < TURNS; turns += 1) {
    const { body } = await ask('/api/chat/send', { body: { message: 'Go.', session_id: 's1' } });
    for (;;) {
      most = Math.max(most, process.memoryUsage.rss() - before);
      const status = await ask(`/api/chat/tasks/${body.task_id}`);
      if (status.body.status === 'completed') break;
      assert.equal(status.body.status, 'processing');
    }
  }
  // Unbounded, 40 clients would hold the 19 MiB each that 20 turns write; so each holds little more than 1.
  assert.ok(most < 300 * MIB, `${Math.round(most / MIB)} MiB`);
  assert.equal((await ask('/ws/stats')).body.too_slow, 40);
});
