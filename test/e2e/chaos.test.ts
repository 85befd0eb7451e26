/** Everything at once, in an order that a seed decides: every accepted turn ends exactly once, and nothing is used up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Store } from '../../src/ports/store.ts';
import { type Chatter, isEnd, last, numbered } from '../support/chatter.ts';
import { dice } from '../support/dice.ts';
import { startScene, startTestNode, type TestNode } from '../support/node.ts';
import { memoryStore, storesAround } from '../support/stores.ts';
import { callTools, cutAfter, refuse, type Scenario, say, stallAfter } from '../support/stub-model.ts';
import type { Received } from '../support/websocket-client.ts';

const SCENARIOS: readonly (() => Scenario)[] = [
  () => say('A short answer.', { chunks: 3 }),
  () => say('An answer that takes its time.', { chunks: 6, everyMs: 3 }),
  () => stallAfter('Never to '),
  () => cutAfter('Half '),
  () => refuse(400),
  () => callTools([{ name: 'current_time', args: '{"timezone":"UTC"}' }]),
];

/** Cancels what is left over and over until each accepted turn has ended. */
async function settle(client: Chatter, cancel: (taskId: string) => Promise<unknown>): Promise<void> {
  const left = (): readonly string[] => {
    const ended = new Set(
      numbered(client.frames)
        .filter(isEnd)
        .map((frame) => frame.task_id),
    );
    const accepted = numbered(client.frames).filter(({ type }) => type === 'chat.accepted');
    return [...new Set(accepted.map((frame) => String(frame.task_id)))].filter((id) => !ended.has(id));
  };
  for (let open = left(); open.length > 0; open = left()) await Promise.all(open.map(cancel));
}

/** A store that is now slow, now down. */
function flaky(roll: (sides: number) => number): { store: Store; mend(): void } {
  const store = memoryStore();
  let mended = false;
  return {
    mend() {
      mended = true;
    },
    store: {
      ...store,
      async commit(write) {
        if (roll(2)) await delay(roll(5));
        if (!mended && roll(15) === 0) throw new Error('the store is down');
        return store.commit(write);
      },
    },
  };
}

for (const seed of [1, 2, 3, 4, 5, 6])
  test(`sends, cancels, interrupts and resends in disorder (seed ${seed})`, async (t) => {
    const roll = dice(seed);
    const { store, mend } = flaky(roll);
    const { stub, chat, ask } = await startScene(t, {
      parts: seed % 2 ? {} : { stores: storesAround(store) },
      env: { DEFAULT_TIER: 'free', TIERS_FILE: new URL('./chaos-tiers.json', import.meta.url).pathname },
    });
    stub.byDefault(() => (SCENARIOS[roll(SCENARIOS.length)] ?? (() => say('Yes.')))());
    const clients: Chatter[] = [];
    for (const session of ['s1', 's2', 's3', 's4', 's1', 's2']) clients.push(await chat('acme', session));
    const tasks: string[] = [];
    const cancel = (task_id: string) => ask('/api/chat/cancel', { body: { task_id } });
    for (let step = 0; step < 200; step += 1) {
      const client = clients[roll(clients.length)];
      const known = tasks[roll(Math.max(1, tasks.length))];
      const deed = roll(10);
      if (deed < 5) {
        const on_busy = ['enqueue', 'reject', 'interrupt'][roll(3)];
        tasks.push(client?.say('Go.', { on_busy, stream: roll(4) > 0 }) ?? '');
      } else if (deed < 8 && known) client?.send({ type: 'chat.cancel', task_id: known });
      else if (deed === 8 && known) client?.say('Again.', { task_id: known });
      else await delay(roll(4));
    }
    for (const client of clients) {
      client.send({ type: 'ping' });
      await client.see('pong');
    }
    for (const client of clients) await settle(client, cancel);

    const answered = clients.flatMap(({ frames }) => frames.filter(isEnd)).map((frame) => frame.task_id);
    for (const task of tasks) assert.ok(answered.includes(task), 'a message was never answered');
    for (const [one, other] of [
      [clients[0], clients[4]],
      [clients[1], clients[5]],
    ])
      assert.deepEqual(numbered(one?.frames ?? []), numbered(other?.frames ?? []));
    await isWhole(ask);
    mend();
    stub.byDefault(() => say('Still well.'));
    const fresh = await chat('acme', 'fresh');
    for (let turns = 0; turns < 4; turns += 1) last(await fresh.turn('Well?'), 'chat.response');
  });

/** No slot, no place in line, no crash was left by what happened. */
async function isWhole(ask: TestNode['ask']): Promise<void> {
  const { body } = await ask('/metrics/overview');
  assert.deepEqual([body.crashes, body.executions], [0, { running: 0, queued: 0 }]);
}

test('sessions deleted in the middle of everything end their turns and give back their slots', async (t) => {
  const { stub, chat, ask } = await startScene(t, { env: { DEFAULT_TIER: 'enterprise' } });
  stub.byDefault(({ index }) => (index % 2 ? stallAfter('Never ') : say('Word by word.', { everyMs: 2 })));
  for (let round = 0; round < 10; round += 1) {
    const client = await chat('acme', 's1');
    const tasks = [1, 2, 3].map(() => client.say('Go.'));
    if (round % 3) await client.see(round % 3 === 1 ? 'chat.accepted' : 'chat.delta');
    const gone = await ask('/api/sessions/s1', { method: 'DELETE' });
    assert.equal(gone.status, 204);
    await client.closed;
    for (const task of tasks) assert.equal(client.of(task).filter(isEnd).length, 1, `round ${round}`);
    assert.equal((await ask('/api/sessions/s1/messages')).status, 404);
  }
  await isWhole(ask);
});

test('a client that loses its connection again and again misses nothing', async (t) => {
  const { chat } = await startTestNode(t, {
    env: { DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: 'offline-200x1', DELTA_WINDOW_MS: '2' },
  });
  const witness = await chat('acme', 's1');
  const roll = dice(7);
  const tasks = [1, 2, 3].map(() => witness.say('Go.'));
  const all = Promise.all(tasks.map(witness.ended));
  const seen: Received[] = [];
  let epoch = witness.frames[0]?.data.epoch;
  let connections = 0;
  while (seen.filter(isEnd).length < 3) {
    connections += 1;
    const query = { last_seq: String(seen.at(-1)?.seq ?? 0), epoch };
    const client = await chat('acme', 's1', { query, protocols: [roll(2) ? 'nooble' : 'nooble.msgpack'] });
    const ready = await client.see('session.ready');
    assert.equal(ready.data.recovered, true);
    epoch = ready.data.epoch;
    const wanted = roll(12);
    await client.see(() => numbered(client.frames).length >= wanted || client.frames.some(isEnd));
    client.destroy();
    seen.push(...numbered(client.frames));
  }
  await all;
  assert.deepEqual(seen, numbered(witness.frames).slice(0, seen.length));
  assert.ok(connections > 10, `${connections}`);
});

test('sessions and tenants that leave memory all the time lose nothing and answer everybody', async (t) => {
  const { chat, ask } = await startTestNode(t, {
    env: {
      SESSION_IDLE_SECONDS: '0.005',
      ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '0',
      DEFAULT_TIER: 'enterprise',
    },
  });
  const roll = dice(11);
  const turns = new Map<string, number>();
  const visit = async (session: string): Promise<void> => {
    if (roll(3) === 0) {
      const { status, body } = await ask('/api/chat/send', { body: { message: 'Go.', session_id: session } });
      assert.equal(status, 202, JSON.stringify(body));
    } else {
      const client = await chat('acme', session);
      last(await client.turn('Go.'), 'chat.response');
      await client.close();
    }
    turns.set(session, (turns.get(session) ?? 0) + 1);
    await delay(roll(12));
  };
  const visitor = async (): Promise<void> => {
    for (let visits = 0; visits < 40; visits += 1) await visit(`s${roll(3)}`);
  };
  await Promise.all([visitor(), visitor(), visitor()]);
  for (;;) {
    const { body } = await ask('/health/detailed');
    if (body.stats.sessions + body.stats.tenants === 0) break;
  }
  for (const [session, count] of turns) {
    const { body } = await ask(`/api/sessions/${session}/messages?limit=100`);
    assert.equal(body.messages.length, Math.min(100, count * 2), session);
  }
  await isWhole(ask);
});
