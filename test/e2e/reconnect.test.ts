/** Clients that come back get what they missed, or are told that they did not; several see the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextLoopTurn } from 'node:timers/promises';
import { type Chatter, deltas, last, numbered, types } from '../support/chatter.ts';
import { type Scene, startScene } from '../support/node.ts';
import { type Scenario, say, stallAfter } from '../support/stub-model.ts';

/** A stream that goes on when the test says so. */
function stepwise(stub: Scene['stub']) {
  const steps: ((text: string | null) => void)[] = [];
  const told: (string | null)[] = [];
  stub.next(async (reply) => {
    for (;;) {
      const text =
        told.length > 0 ? told.shift() : await new Promise<string | null>((resolve) => steps.push(resolve));
      if (text === null || text === undefined) break;
      reply.delta({ content: text });
    }
    reply.finish('stop');
    reply.usage(7);
    reply.done();
  });
  return (text: string | null): void => {
    const step = steps.shift();
    if (step) step(text);
    else told.push(text);
  };
}

const ready = (client: Chatter) => client.frames.find(({ type }) => type === 'session.ready')?.data;
const saw = (client: Chatter, text: string) =>
  client.see(({ type }) => type === 'chat.delta' && deltas(client.frames).includes(text));

test('a client that comes back during a stream gets what it missed, and then the rest', async (t) => {
  const { stub, chat } = await startScene(t);
  const tell = stepwise(stub);
  const [first, witness] = [await chat('acme', 's1'), await chat('acme', 's1')];
  const { epoch } = ready(first);
  const task = first.say('Go.');
  tell('one ');
  await saw(first, 'one ');
  const seen = numbered(first.frames);
  first.destroy();
  tell('two ');
  await saw(witness, 'two ');
  tell('three ');
  await saw(witness, 'three ');

  const lastSeq = String(seen.at(-1)?.seq);
  const back = await chat('acme', 's1', { query: { last_seq: lastSeq, epoch } });
  assert.deepEqual([ready(back).recovered, ready(back).running, ready(back).epoch], [true, [task], epoch]);
  tell('four.');
  tell(null);
  await Promise.all([back.ended(task), witness.ended(task)]);

  assert.deepEqual([...seen, ...numbered(back.frames)], numbered(witness.frames));
  assert.equal(deltas([...seen, ...back.frames]), 'one two three four.');
  assert.ok(!types(back.frames).includes('session.snapshot'));
});

test('nothing was missed: nothing is sent again', async (t) => {
  const { chat } = await startScene(t);
  const client = await chat('acme', 's1');
  await client.turn('Go.');
  const { epoch } = ready(client);
  const last_seq = String(numbered(client.frames).at(-1)?.seq);
  const back = await chat('acme', 's1', { query: { last_seq, epoch } });
  back.send({ type: 'ping' });
  await back.see('pong');

  assert.deepEqual(types(back.frames), ['session.ready', 'pong']);
  assert.equal(ready(back).seq, Number(last_seq));
});

test('a whole turn that was missed is told again as it was', async (t) => {
  const { chat } = await startScene(t);
  const client = await chat('acme', 's1');
  await client.turn('Go.');
  const back = await chat('acme', 's1', { query: { last_seq: '0', epoch: ready(client).epoch } });
  await back.see('chat.response');

  assert.deepEqual(numbered(back.frames), numbered(client.frames));
});

for (const [name, query] of [
  ['of another epoch', (epoch: string, seq: number) => ({ last_seq: String(seq), epoch: `${epoch}x` })],
  ['without an epoch', (_: string, seq: number) => ({ last_seq: String(seq) })],
  ['beyond the last one', (epoch: string, seq: number) => ({ last_seq: String(seq + 1), epoch })],
] as const)
  test(`a number ${name} is not recovered: a snapshot follows directly`, async (t) => {
    const { stub, chat } = await startScene(t);
    const client = await chat('acme', 's1');
    const [asked] = await client.turn('Go.');
    stub.next(stallAfter('And '));
    const running = client.say('On.');
    await client.see(({ task_id, type }) => task_id === running && type === 'chat.delta');
    const { epoch } = ready(client);
    const seq = numbered(client.frames).at(-1)?.seq ?? 0;
    const back = await chat('acme', 's1', { query: query(epoch, seq) });
    const snapshot = await back.see('session.snapshot');

    assert.deepEqual(types(back.frames).slice(0, 2), ['session.ready', 'session.snapshot']);
    assert.equal(ready(back).recovered, false);
    assert.equal(ready(back).seq, seq);
    assert.equal(snapshot.seq, undefined);
    const task_id = asked?.task_id;
    assert.deepEqual(snapshot.data.messages, [
      { role: 'user', content: 'Go.', task_id },
      { role: 'assistant', content: 'Hello there.', task_id },
      { role: 'user', content: 'On.', task_id: running },
      { role: 'assistant', content: 'And ', task_id: running, partial: true },
    ]);
    back.send({ type: 'chat.cancel', task_id: running });
    assert.equal((await back.ended(running)).seq, seq + 1);
  });

test('a first connection is neither recovered nor not', async (t) => {
  const { chat } = await startScene(t);
  const { recovered, seq, tier, running } = ready(await chat('acme', 's1'));
  assert.deepEqual([recovered, seq, tier, running], [undefined, 0, 'professional', []]);
});

test('a client far behind the replay log is told so, and its turn goes on unharmed', async (t) => {
  const { stub, chat } = await startScene(t, { env: { DELTA_WINDOW_MS: '0', DEFAULT_TIER: 'enterprise' } });
  const tell = stepwise(stub);
  const client = await chat('acme', 's1');
  const task = client.say('Go.');
  const part = 'x'.repeat(30_000);
  for (let parts = 0; parts < 12; parts += 1) {
    tell(part);
    await client.see(({ type }) => type === 'chat.delta' && deltas(client.frames).length > parts * 30_000);
  }
  const back = await chat('acme', 's1', { query: { last_seq: '1', epoch: ready(client).epoch } });
  const snapshot = await back.see('session.snapshot');
  assert.equal(ready(back).recovered, false);
  assert.equal(snapshot.data.messages.at(-1).content.length, 360_000);
  client.send({ type: 'chat.cancel', task_id: task });
  await Promise.all([client.ended(task), back.ended(task)]);
});

test('JSON and msgpack sockets on one session see the same frames', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(say('Grüße, 世界 🌍!', { chunks: 8, everyMs: 2 }));
  const json = await chat('acme', 's1', { protocols: ['nooble'] });
  const packed = await chat('acme', 's1', { protocols: ['nooble.msgpack'] });
  assert.deepEqual([json.protocol, packed.protocol], ['nooble', 'nooble.msgpack']);
  const frames = await packed.turn('Hallo.', { context: { where: 'hier' } });
  await json.see('chat.response');

  assert.equal(last(frames, 'chat.response').data.content, 'Grüße, 世界 🌍!');
  assert.equal(deltas(frames), 'Grüße, 世界 🌍!');
  assert.deepEqual(numbered(json.frames), numbered(packed.frames));
  assert.deepEqual(Object.keys(ready(json)), Object.keys(ready(packed)));
});

test('a character that the model cuts in two is never sent in halves', async (t) => {
  const { stub, chat } = await startScene(t, { env: { DELTA_WINDOW_MS: '0' } });
  const halves =
    (after: Scenario): Scenario =>
    async (reply) => {
      for (const unit of ['a', '\ud83c', '\udf0d', '\ud83c']) {
        reply.delta({ content: unit });
        await nextLoopTurn();
      }
      await after(reply);
    };
  stub.next(
    halves((reply) => {
      reply.delta({ content: '\udf0d' });
      reply.finish('stop');
      reply.done();
    }),
    halves(() => {}),
  );
  const client = await chat('acme', 's1', { protocols: ['nooble.msgpack'] });
  const frames = await client.turn('Go.');
  assert.equal(deltas(frames), 'a🌍🌍');
  assert.equal(last(frames, 'chat.response').data.content, 'a🌍🌍');

  const task = client.say('Again.');
  await client.see(({ task_id, data }) => task_id === task && data.content?.endsWith('🌍'));
  client.send({ type: 'chat.cancel', task_id: task });
  assert.equal((await client.ended(task)).data.content, 'a🌍');
  assert.equal(deltas(client.of(task)), 'a🌍');
});

test('a session that left memory takes its conversation up again, under another epoch', async (t) => {
  const { chat, ask, stub } = await startScene(t, { env: { SESSION_IDLE_SECONDS: '0.05' } });
  const client = await chat('acme', 's1');
  await client.turn('Go.');
  const { epoch } = ready(client);
  await client.close();
  for (;;) {
    const { body } = await ask('/health/detailed');
    if (body.stats.sessions === 0) break;
  }
  const back = await chat('acme', 's1', { query: { last_seq: '1', epoch } });
  const { data } = await back.see('session.snapshot');
  assert.notEqual(ready(back).epoch, epoch);
  assert.deepEqual(
    data.messages.map(({ content }: { content: string }) => content),
    ['Go.', 'Hello there.'],
  );
  await back.turn('And on.');
  assert.equal((await stub.request(1)).body.messages.length, 4);
});
