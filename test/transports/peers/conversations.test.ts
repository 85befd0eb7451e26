/** Conversations that an external service keeps: whose word counts, for how long, and what the service is told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import type { Message, Role } from '../../../src/domain/conversation.ts';
import { refusal } from '../../../src/domain/errors.ts';
import { DEFAULT_AGENT_ID, sessionIdSchema, type TaskId, taskIdSchema } from '../../../src/domain/ids.ts';
import type { PeerData } from '../../../src/ports/peers.ts';
import type { MessagePage, Store } from '../../../src/ports/store.ts';
import { createConversationCache, joined } from '../../../transports/peers/conversation-cache.ts';
import type { TurnEnded } from '../../../transports/peers/remote-conversations.ts';
import { handClock } from '../../actors/fixtures.ts';
import { logTo } from '../../support/quiet.ts';
import { memoryStore } from '../../support/stores.ts';
import { memoryTransport } from '../../support/transport.ts';
import {
  acme,
  embeddedFor,
  peersOver,
  remoteConversations,
  servedBy,
  session,
  startServices,
} from './peer-fixtures.ts';

const taskOf = (name: string): TaskId => taskIdSchema.parse(name);
const message = (name: string, role: Role, content: string, atMs = 0): Message => ({
  ...{ role, content, atMs },
  taskId: taskOf(name),
});
const page = { limit: 100, before: undefined };
const contents = (found: MessagePage | null): readonly string[] | undefined =>
  found?.messages.map(({ content }) => content);

/** A turn from its acceptance to its end, as a session writes it. */
async function turn(
  store: Store,
  name: string,
  question: string,
  answer: string,
  atMs = 5_000,
): Promise<void> {
  const asked = message(name, 'user', question, atMs);
  const begun = {
    ...{ taskId: asked.taskId, tenantId: acme, sessionId: session, agentId: DEFAULT_AGENT_ID },
    createdAtMs: atMs,
  };
  await store.commit({
    type: 'turn-accepted',
    turn: { ...begun, status: 'processing' },
    message: asked,
    day: '2026-01-01',
  });
  await store.commit({
    type: 'turn-ended',
    turn: { ...begun, status: 'completed', content: answer },
    message: message(name, 'assistant', answer, atMs + 1),
    asked,
    tier: 'free',
  });
}

/** Remote conversations over a service that is a function, on a clock that the test moves. */
function openConversations(answer: () => PeerData | Promise<PeerData>) {
  const clock = handClock(1_000_000);
  const { peers, asked } = servedBy(answer);
  const lines: string[] = [];
  const log = logTo(({ level, text }) => level === 'warn' && lines.push(text));
  const local = memoryStore();
  const conversations = remoteConversations(peers, {
    ...{ store: local, clock, log, defaultTier: 'professional' },
    tierOf: async () => 'free',
  });
  return {
    ...{ ...conversations, local, lines },
    asked: () => asked.length,
    pass: (ms: number) => {
      clock.nowMs += ms;
    },
  };
}

const told = (...texts: readonly string[]): PeerData => ({
  messages: texts.map((content, n) => ({
    role: n % 2 === 0 ? 'user' : 'assistant',
    content,
    task_id: `r${Math.floor(n / 2)}`,
    created_at: new Date(1_000 + n).toISOString(),
  })),
});

test('what a service told comes first, and behind it what only this node knows', () => {
  const q = (name: string, atMs = 0) => message(name, 'user', `${name}?`, atMs);
  const a = (name: string, atMs = 0) => message(name, 'assistant', `${name}!`, atMs);

  assert.deepEqual(joined([], [q('1')]), [q('1')]);
  assert.deepEqual(joined([q('1'), a('1')], []), [q('1'), a('1')]);
  assert.deepEqual(joined([q('1'), a('1')], [q('1'), a('1'), q('2')]), [q('1'), a('1'), q('2')]);
  assert.deepEqual(joined([q('1')], [q('0'), q('1'), a('1')]), [q('1'), a('1')]);
  // The service keeps no tasks: words tell.
  const without = [
    { ...q('1'), taskId: taskOf('history:0') },
    { ...a('1'), taskId: taskOf('history:0') },
  ];
  assert.deepEqual(joined(without, [q('1'), a('1'), q('2')]), [...without, q('2')]);
  // The same words again, in a task that the service does not know, are new.
  const again = { ...q('1'), taskId: taskOf('2') };
  assert.deepEqual(joined([q('1'), a('1')], [q('1'), a('1'), again]), [q('1'), a('1'), again]);
  // Nothing in common: what is newer.
  assert.deepEqual(joined([q('9', 50)], [q('1', 10), q('2', 60)]), [q('9', 50), q('2', 60)]);
});

test('the cache keeps the newest, for its time, within its bounds', () => {
  const cache = createConversationCache({ conversations: 2, units: 100 });
  const one = message('1', 'user', 'x'.repeat(10));
  cache.set('a', [one, message('2', 'user', 'new')], 1, 100);
  assert.deepEqual(
    cache.get('a', 99)?.map(({ content }) => content),
    ['new'],
  );
  assert.equal(cache.get('a', 100), undefined);

  cache.set('a', [one], 5, 100);
  cache.set('b', [one], 5, 100);
  cache.get('a', 0);
  cache.set('c', [one], 5, 100);
  assert.deepEqual(
    ['a', 'b', 'c'].map((key) => cache.get(key, 0) !== undefined),
    [true, false, true],
  );
  cache.append('a', [one, message('3', 'user', 'y'.repeat(95))]);
  // One that is larger than all may be together goes alone.
  assert.deepEqual([cache.size(), cache.get('a', 0), cache.get('c', 0)], [1, undefined, [one]]);
  cache.append('a', [one]);
  assert.equal(cache.size(), 1);
});

test('a session begins with what the service knows, over the queue', async (t) => {
  const transport = memoryTransport(t);
  const heard = await startServices(transport, embeddedFor(t));
  const { store } = remoteConversations(peersOver(transport, 'redis'));

  assert.deepEqual(contents(await store.session(acme, session, page)), ['Hello', 'Hi']);
  assert.deepEqual(heard[0]?.data, { session_id: 'session-1', limit: 40 });
  assert.equal(await store.session(acme, sessionIdSchema.parse('unknown'), page), null);
});

test('the service is asked once in the cache time, by however many at once', async () => {
  const { store, asked, pass } = openConversations(() => told('a', 'b'));
  await Promise.all([store.session(acme, session, page), store.session(acme, session, page)]);
  assert.equal(asked(), 1);
  pass(299_999);
  await store.session(acme, session, page);
  assert.equal(asked(), 1);
  pass(1);
  await store.session(acme, session, page);
  assert.equal(asked(), 2);
});

test('turns that end are there at once, whether the service has been told or not', async () => {
  const { store, asked } = openConversations(() => told('a', 'b'));
  await store.session(acme, session, page);
  await turn(store, 't1', 'c', 'd');
  assert.deepEqual(contents(await store.session(acme, session, page)), ['a', 'b', 'c', 'd']);
  assert.deepEqual(contents(await store.session(acme, session, { ...page, limit: 2 })), ['c', 'd']);
  assert.equal(asked(), 1);
});

test('older pages come from what is stored here', async () => {
  const { store, asked } = openConversations(() => told('a', 'b'));
  await turn(store, 't1', 'c', 'd');
  await turn(store, 't2', 'e', 'f', 6_000);
  assert.deepEqual(contents(await store.session(acme, session, { limit: 10, before: taskOf('t2') })), [
    'c',
    'd',
  ]);
  assert.equal(asked(), 0);
});

test('where the service does not answer, or with nonsense, what is stored serves, and it is said', async () => {
  for (const answer of [
    () => Promise.reject(new Error('away')),
    () => ({ messages: 'none' }),
    () => ({ success: true }),
  ]) {
    const { store, lines, asked } = openConversations(answer);
    await turn(store, 't1', 'c', 'd');
    assert.deepEqual(contents(await store.session(acme, session, page)), ['c', 'd']);
    assert.equal(await store.session(acme, sessionIdSchema.parse('unknown'), page), null);
    assert.deepEqual([lines.length, asked()], [2, 2]);
  }
});

test('a deleted conversation stays away, though the service still has it; what is said later is new', async () => {
  let reply = told('a', 'b');
  const { store, pass } = openConversations(() => reply);
  await store.session(acme, session, page);
  await store.commit({ type: 'session-deleted', tenantId: acme, sessionId: session });
  assert.equal(await store.session(acme, session, page), null);

  pass(1_000_000);
  const later = { role: 'user', content: 'c', task_id: 't9', created_at: new Date(1_500_000).toISOString() };
  reply = { messages: [...[told('a').messages].flat(), later] };
  assert.deepEqual(contents(await store.session(acme, session, page)), ['c']);
});

const ended = (name: string, more: Partial<TurnEnded> = {}): TurnEnded => ({
  type: 'turn-ended',
  turn: {
    ...{ taskId: taskOf(name), tenantId: acme, sessionId: session, agentId: DEFAULT_AGENT_ID },
    ...{ status: 'completed', createdAtMs: 1_000 },
    info: {
      ...{ execution_time_ms: 1, time_to_first_token_ms: 1, iterations: 1, tools_used: [], tokens_used: 9 },
      model: 'offline-echo',
    },
  },
  asked: message(name, 'user', 'Question', 1_000),
  message: message(name, 'assistant', 'Answer', 2_000),
  tier: 'free',
  ...more,
});

test('of a turn that ended the service is told the question and then the answer, each time alike', () => {
  const { saved } = openConversations(() => told());
  const [first, second, ...rest] = saved(ended('t1'));
  assert.deepEqual(rest, []);
  assert.deepEqual(saved(ended('t1')), [first, second]);
  assert.equal(first?.action?.action_id, first?.id);
  assert.partialDeepStrictEqual(first, {
    queue: 'conversation_service:free:default',
    format: 'json',
    action: { tenant_tier: 'free', timestamp: '1970-01-01T00:00:01.000Z' },
  });
  assert.deepEqual(second?.action?.data, {
    session_id: 'session-1',
    role: 'assistant',
    content: 'Answer',
    agent_id: 'default',
    model_name: 'offline-echo',
    tokens_estimate: 2,
    task_id: 't1',
  });
});

test('a turn without an answer, or without a word of it, saves its question alone', () => {
  const { saved } = openConversations(() => told());
  const roles = (write: TurnEnded): readonly unknown[] => saved(write).map(({ action }) => action?.data.role);
  const failed = ended('t1', { message: undefined });
  assert.deepEqual(roles({ ...failed, turn: { ...failed.turn, error: refusal('INTERNAL') } }), ['user']);
  assert.deepEqual(roles(ended('t1', { message: message('t1', 'assistant', '') })), ['user']);
  const { tier: _, ...untold } = ended('t1');
  assert.equal(saved(untold)[0]?.queue, 'conversation_service:professional:default');
});

test('ids are uuids, the same each time and told apart however long the task id is', () => {
  const { saved } = openConversations(() => told());
  const ids = ['x'.repeat(128), `${'x'.repeat(127)}y`].flatMap((name) =>
    saved(ended(name)).map(({ id }) => id),
  );
  assert.equal(new Set(ids).size, 4);
  for (const id of ids) assert.ok(z.uuid().safeParse(id).success, id);
});
