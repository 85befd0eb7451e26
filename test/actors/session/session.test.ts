/** The session's decisions: a turn from `said` to its end, cancels, interrupts, resends, failures, clients. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SessionEffect, SessionMessage, SessionState } from '../../../actors/session/protocol.ts';
import { recoverSession } from '../../../actors/session/recovery.ts';
import { newSession } from '../../../actors/session/session.ts';
import type { Admitted } from '../../../actors/tenant/protocol.ts';
import { refusal } from '../../../src/domain/errors.ts';
import type { TurnStatus } from '../../../src/domain/turn.ts';
import type { ExecutionOutcome } from '../../../src/ports/runner.ts';
import {
  AGENT,
  aborted,
  answered,
  CONFIG,
  eventTypes,
  failed,
  only,
  play,
  SESSION,
  said,
  TENANT,
  taskId,
} from '../fixtures.ts';

const fresh = newSession(TENANT, SESSION, CONFIG, 1);
const [idle] = play(
  fresh,
  { type: 'loaded', history: [], interrupted: [] },
  { type: 'joined', tier: 'professional', fixed: false },
);

const T = taskId('t');
const found = (id = 't', atMs = 20, attempt = 1): SessionMessage => ({
  type: 'agentFound',
  taskId: taskId(id),
  attempt,
  agent: AGENT,
  atMs,
});
const claimed = (id = 't', slot: Admitted['slot'] = 'requested', ahead = 0, attempt = 1): SessionMessage => ({
  type: 'admitted',
  taskId: taskId(id),
  attempt,
  tier: 'professional',
  slot,
  ahead,
  atMs: 21,
});
const granted = (id = 't', attempt = 1): SessionMessage => ({
  type: 'slotGranted',
  taskId: taskId(id),
  attempt,
  atMs: 22,
});
const kept = (id = 't', step: 'accepted' | 'ended' = 'accepted', duplicate?: TurnStatus): SessionMessage => ({
  type: 'stored',
  step,
  taskId: taskId(id),
  duplicate,
  atMs: 23,
});
const keepFailed = (id: string, step: 'accepted' | 'ended'): SessionMessage => ({
  type: 'storeFailed',
  step,
  taskId: taskId(id),
  atMs: 24,
});
const ended = (id = 't', outcome: ExecutionOutcome = answered('hello')): SessionMessage => ({
  type: 'ended',
  taskId: taskId(id),
  outcome,
  text: 'hel',
  atMs: 30,
});
const cancel = (id = 't', replyTo = 9, atMs = 25): SessionMessage => ({
  type: 'cancel',
  taskId: taskId(id),
  replyTo,
  atMs,
});

/** A session whose turn has come as far as named. */
const [claiming] = play(idle, said('t'));
const [writing] = play(claiming, found(), claimed());
const [waiting] = play(writing, kept());
const [running] = play(waiting, granted());
const [ending] = play(running, ended());

const types = (effects: readonly SessionEffect[]): readonly string[] => effects.map(({ type }) => type);
const replies = (effects: readonly SessionEffect[]) =>
  only(effects, 'reply').map(({ replyTo, value }) => ({ replyTo, value }));
const released = (effects: readonly SessionEffect[]) =>
  only(effects, 'release').map(({ slot, refund }) => ({ slot, refund }));

test("a turn's agent is looked up, then it asks to be admitted, and nothing is said of it yet", () => {
  const [saying, effects] = play(idle, said('t'));
  assert.deepEqual(types(effects), ['track', 'findAgent']);
  assert.deepEqual(types(play(saying, found())[1]), ['requestAdmission']);
});

test('a turn is kept before it is accepted, and its caller hears then', () => {
  const [, keeping] = play(claiming, found(), claimed());
  assert.deepEqual(types(keeping), ['requestAdmission', 'store']);
  const [, effects] = play(writing, kept());
  assert.deepEqual(eventTypes(effects), ['chat.accepted']);
  assert.deepEqual(replies(effects), [
    { replyTo: 1, value: { ok: true, taskId: T, accepted: { status: 'processing', position: 0 } } },
  ]);
});

test('a granted turn runs while the store still writes, and its execution is told that it is not accepted', () => {
  const [early, effects] = play(writing, granted());
  const [execute] = only(effects, 'execute');
  assert.equal(execute?.options.accepted, false);
  const [, more] = play(early, kept());
  assert.deepEqual(eventTypes(more), ['chat.accepted']);
  const [, late] = play(waiting, granted());
  assert.equal(only(late, 'execute')[0]?.options.accepted, true);
});

test("a plan carries the history, the agent's tools that the tier allows, and the limits under the caps", () => {
  const capped = { ...running, config: { ...CONFIG, maxIterations: 4, maxTimeMs: 5_000 } };
  const [, effects] = play(
    capped,
    ended(),
    kept('t', 'ended'),
    said('u'),
    found('u'),
    claimed('u'),
    granted('u'),
  );
  const plan = only(effects, 'execute')[0]?.plan;
  assert.deepEqual(
    plan?.history.map(({ role, content }) => [role, content]),
    [
      ['user', 'message t'],
      ['assistant', 'hello'],
      ['user', 'message u'],
    ],
  );
  assert.deepEqual(plan?.limits, {
    timeoutMs: 5_000,
    maxIterations: 4,
    maxTokens: 16_000,
    tools: ['current_time', 'calculator'],
  });
});

test('the slot is free as soon as the execution ends, and the end is kept before anybody hears of it', () => {
  const [, effects] = play(running, ended());
  assert.deepEqual(types(effects), ['release', 'store']);
  assert.deepEqual(released(effects), [{ slot: 'granted', refund: false }]);
  const [after, closing] = play(ending, kept('t', 'ended'));
  assert.deepEqual(types(closing), ['event', 'untrack', 'measure']);
  assert.deepEqual(eventTypes(closing), ['chat.response']);
  assert.deepEqual([after.turns, after.history?.length], [[], 2]);
});

test('a failed turn ends in `error`, keeps the text so far, and a timeout has its own status', () => {
  const error = refusal('EXECUTION_TIMEOUT');
  const [over, effects] = play(running, ended('t', failed(error)));
  const write = only(effects, 'store')[0]?.write;
  assert.ok(write?.type === 'turn-ended');
  const left = { role: 'assistant', content: 'hel', taskId: T, atMs: 30, partial: true };
  assert.deepEqual([write.turn.status, write.turn.content, write.message], ['timeout', 'hel', left]);
  const [, closing] = play(over, kept('t', 'ended'));
  assert.deepEqual(only(closing, 'event')[0]?.event, { type: 'error', data: error });
});

test('what a lost execution had written is kept; where it had written nothing there is nothing to keep', () => {
  const lost = (text: string) => {
    const [, effects] = play(running, { type: 'executionLost', taskId: T, text, atMs: 30 });
    const write = only(effects, 'store')[0]?.write;
    return (
      write?.type === 'turn-ended' && [write.turn.content, write.message?.content, write.message?.partial]
    );
  };
  assert.deepEqual(lost('Half of'), ['Half of', 'Half of', true]);
  assert.deepEqual(lost(''), [undefined, undefined, undefined]);
});

test('a cancelled turn keeps its partial text and says how long the abort took, to all who cancelled', () => {
  const [stopping, abort] = play(running, cancel('t', 8, 25), cancel('t', 9, 27));
  assert.deepEqual(types(abort), ['abort', 'abort']);
  const [, effects] = play(stopping, ended('t', aborted), kept('t', 'ended'));
  const [event] = only(effects, 'event');
  assert.deepEqual(event?.event, { type: 'chat.cancelled', data: { content: 'hel', abort_ms: 5 } });
  assert.deepEqual(replies(effects), [
    { replyTo: 8, value: { ok: true, taskId: T, status: 'cancelled', abortMs: 5 } },
    { replyTo: 9, value: { ok: true, taskId: T, status: 'cancelled', abortMs: 3 } },
  ]);
});

test('a cancel that comes too late answers how the turn ended, once that is kept', () => {
  const [both, none] = play(ending, cancel('t', 9, 31));
  assert.deepEqual(none, []);
  const [, effects] = play(both, kept('t', 'ended'));
  assert.deepEqual(replies(effects), [
    { replyTo: 9, value: { ok: true, taskId: T, status: 'completed', abortMs: 0 } },
  ]);
  assert.deepEqual(eventTypes(effects), ['chat.response']);
});

test('a cancel of a turn that nobody knows is NOT_FOUND', () => {
  const [[reply]] = [replies(play(idle, cancel('x'))[1])];
  assert.deepEqual(reply?.value, {
    ok: false,
    taskId: 'x',
    error: refusal('NOT_FOUND', { message: 'There is no such task.' }),
  });
});

for (const [when, state, rest] of [
  ['while it is being claimed', claiming, [found(), claimed(), kept(), kept('t', 'ended')]],
  ['while the store writes it', writing, [kept(), kept('t', 'ended')]],
  ['while it waits for a slot', waiting, [kept('t', 'ended')]],
] as const)
  test(`a turn cancelled ${when} is accepted, cancelled, and gives its place back once`, () => {
    const [after, effects] = play(state, cancel(), ...rest, granted());
    assert.equal(eventTypes(effects).at(-1), 'chat.cancelled');
    assert.deepEqual(replies(effects).at(-1), {
      replyTo: 9,
      value: { ok: true, taskId: T, status: 'cancelled', abortMs: 0 },
    });
    assert.deepEqual(released(effects), [
      { slot: 'requested', refund: false },
      { slot: 'granted', refund: false },
    ]);
    assert.deepEqual(after.turns, []);
  });

test('a turn cancelled and then refused answers its caller with the refusal, who cancelled with NOT_FOUND', () => {
  const refused: SessionMessage = {
    type: 'notAdmitted',
    taskId: T,
    attempt: 1,
    error: refusal('RATE_LIMITED'),
    atMs: 26,
  };
  const [after, effects] = play(claiming, cancel(), refused);
  assert.deepEqual(
    replies(effects).map(({ replyTo }) => replyTo),
    [1, 9],
  );
  assert.deepEqual([eventTypes(effects), released(effects), after.turns], [[], [], []]);
});

test("a claim that is refused leaves no trace but the answer, and the session's request is not counted", () => {
  const limited = { ...idle, config: { ...CONFIG, requestsPerHour: 5 } };
  const error = refusal('OVERLOADED');
  const refused = { type: 'notAdmitted', taskId: T, attempt: 1, error, atMs: 26 } as const;
  const [after, effects] = play(limited, said('t'), refused);
  assert.deepEqual(replies(effects), [{ replyTo: 1, value: { ok: false, taskId: T, error } }]);
  assert.deepEqual([after.turns, after.bucket?.tokens], [[], 5]);
});

test('an unknown or inactive agent refuses the turn and refunds what was claimed', () => {
  const error = refusal('AGENT_NOT_FOUND');
  const refused = { type: 'agentRefused', taskId: T, attempt: 1, error, atMs: 26 } as const;
  const [, unknown] = play(claiming, claimed(), refused);
  assert.deepEqual(released(unknown), [{ slot: 'requested', refund: true }]);
  const agent = { ...AGENT, isActive: false };
  const inactive = { type: 'agentFound', taskId: T, attempt: 1, agent, atMs: 26 } as const;
  const [, effects] = play(claiming, claimed(), inactive);
  assert.deepEqual(only(effects, 'refused')[0]?.code, 'AGENT_INACTIVE');
  assert.deepEqual(types(play(claiming, inactive, { ...claimed() })[1]).includes('store'), false);
});

test('a store that refuses the beginning refuses the turn; one that runs already is aborted and never seen', () => {
  const [, before] = play(writing, keepFailed('t', 'accepted'));
  assert.deepEqual(only(before, 'refused')[0]?.code, 'STORE_UNAVAILABLE');
  const [dropped, effects] = play(writing, granted(), keepFailed('t', 'accepted'));
  assert.deepEqual(types(effects), ['execute', 'abort', 'reply', 'refused', 'discard'], 'aborted first');
  const [after, rest] = play(dropped, ended('t', aborted));
  assert.deepEqual([eventTypes(rest), released(rest)], [[], [{ slot: 'granted', refund: true }]]);
  assert.deepEqual(after.turns, []);
});

test('a store that refuses the end ends the turn in STORE_UNAVAILABLE, and the session goes on', () => {
  const [after, effects] = play(ending, keepFailed('t', 'ended'));
  const [event] = only(effects, 'event');
  assert.ok(event?.event.type === 'error' && event.event.data.code === 'STORE_UNAVAILABLE');
  assert.deepEqual(types(play(after, said('u'))[1]), ['track', 'findAgent']);
});

test('a turn that ends before its beginning is kept is accepted first, then ended', () => {
  const [over, none] = play(writing, granted(), ended());
  assert.deepEqual(only(none, 'store'), []);
  const [, effects] = play(over, kept(), kept('t', 'ended'));
  assert.deepEqual(eventTypes(effects), ['chat.accepted', 'chat.response']);
  const [, refused] = play(over, keepFailed('t', 'accepted'));
  assert.deepEqual([eventTypes(refused), released(refused)], [[], []], 'its slot went back when it ended');
});

test('a task the store knows is deduplicated: no second run, no second end, and what ran is thrown away', () => {
  const [dropped, effects] = play(writing, granted(), kept('t', 'accepted', 'failed'));
  assert.equal(types(effects).indexOf('abort') < types(effects).indexOf('discard'), true);
  assert.deepEqual(replies(effects), [
    {
      replyTo: 1,
      value: {
        ok: true,
        taskId: T,
        accepted: { status: 'failed', position: 0, deduplicated: true },
      },
    },
  ]);
  const [again] = play(dropped, said('t', { replyTo: 2 }));
  const [after, rest] = play(again, cancel('t', 3), ended('t', aborted));
  assert.deepEqual(eventTypes(rest), []);
  assert.deepEqual(
    replies(rest).map(({ replyTo }) => replyTo),
    [3],
  );
  assert.deepEqual(after.turns, []);
});

test('a resend is told where its turn stands: while it is claimed, while it runs, and after its end', () => {
  const dedup = (state: SessionState, ...rest: SessionMessage[]): unknown[] =>
    replies(play(state, said('t', { replyTo: 2 }), ...rest)[1]).map(({ replyTo, value }) =>
      typeof value === 'object' && value !== null && 'accepted' in value ? [replyTo, value.accepted] : value,
    );
  const plain = { status: 'processing', position: 0 };
  assert.deepEqual(dedup(claiming, found(), claimed(), kept()), [
    [1, plain],
    [2, { ...plain, deduplicated: true }],
  ]);
  assert.deepEqual(dedup(running), [[2, { ...plain, deduplicated: true }]]);
  const [done] = play(ending, kept('t', 'ended'));
  assert.deepEqual(dedup(done), [[2, { ...plain, status: 'completed', deduplicated: true }]]);
  assert.deepEqual(types(play(done, said('t'))[1]), ['event', 'reply', 'untrack'], 'nothing runs again');
});

test('turns of a session run one after another, and hear of their position when it changes', () => {
  const [two] = play(running, said('u'), found('u'), claimed('u', 'none'), said('v'));
  const [three, effects] = play(two, found('v'), claimed('v', 'none'), kept('u'), kept('v'));
  const accepted = only(effects, 'event').map(({ event }) =>
    event.type === 'chat.accepted' ? event.data : null,
  );
  assert.deepEqual(accepted, [
    { status: 'queued', position: 1 },
    { status: 'queued', position: 2 },
  ]);
  const [, next] = play(three, ended(), kept('t', 'ended'));
  assert.deepEqual(only(next, 'requestSlot'), [{ type: 'requestSlot', taskId: 'u', attempt: 1, arrival: 1 }]);
  const moved = only(next, 'event').at(-1);
  assert.deepEqual([moved?.taskId, moved?.event], ['v', { type: 'chat.queued', data: { position: 1 } }]);
});

test('a move that the tenant tells of comes with the acceptance, or as an event after it', () => {
  const moved = (ahead: number, attempt = 1): SessionMessage => ({
    type: 'moved',
    taskId: T,
    attempt,
    ahead,
    atMs: 28,
  });
  const [early, none] = play(writing, moved(4));
  assert.deepEqual(none, []);
  const [, effects] = play(early, kept(), moved(4), moved(2, 7), moved(3));
  assert.deepEqual(
    only(effects, 'event').map(({ event }) => event),
    [
      { type: 'chat.accepted', data: { status: 'queued', position: 4 } },
      { type: 'chat.queued', data: { position: 3 } },
    ],
  );
  assert.deepEqual(play(running, moved(2))[1], []);
});

test('a busy session refuses where asked to, and queues where asked to', () => {
  const [same, effects] = play(running, said('u', { onBusy: 'reject' }));
  assert.equal(same, running);
  assert.equal(only(effects, 'refused')[0]?.code, 'BUSY');
  assert.equal(play(running, said('u'))[0].turns.length, 2);
});

test('an interrupt ends the running turn as cancelled and is next, before those who wait', () => {
  const [busy] = play(running, said('u'), found('u'), claimed('u', 'none'), kept('u'));
  const [after, effects] = play(busy, said('now', { onBusy: 'interrupt', atMs: 26 }));
  assert.deepEqual(
    after.turns.map((turn) => turn.taskId),
    ['t', 'now', 'u'],
  );
  assert.deepEqual(only(effects, 'abort'), [{ type: 'abort', taskId: 't' }]);
  assert.deepEqual(only(effects, 'event')[0]?.event, { type: 'chat.queued', data: { position: 2 } });
  const [, more] = play(after, found('now'), claimed('now', 'none'), ended('t', aborted), kept('t', 'ended'));
  const over = only(more, 'event')[0]?.event;
  assert.deepEqual(over, { type: 'chat.cancelled', data: { content: 'hel', abort_ms: 4 } });
  assert.deepEqual(only(more, 'requestSlot'), [
    { type: 'requestSlot', taskId: 'now', attempt: 1, arrival: 1 },
  ]);
});

test('an execution that is lost ends its turn with INTERNAL, keeps what was told, and the session goes on', () => {
  const lost: SessionMessage = { type: 'executionLost', taskId: T, text: 'hel', atMs: 29 };
  const [over] = play(running, lost);
  const [after, effects] = play(over, kept('t', 'ended'));
  const [event] = only(effects, 'event');
  assert.ok(event?.event.type === 'error' && event.event.data.code === 'INTERNAL');
  assert.deepEqual([after.turns, play(idle, lost)[1]], [[], []]);
});

test('a second end, and one for a turn that is gone, change nothing', () => {
  assert.deepEqual(play(ending, ended('t', aborted))[1], []);
  assert.deepEqual(play(idle, ended(), kept(), kept('t', 'ended'), keepFailed('t', 'ended'))[1], []);
});

test('a place or a slot for a turn that is not here is given back', () => {
  assert.deepEqual(released(play(idle, claimed('x', 'none'), granted('x'))[1]), [
    { slot: 'none', refund: true },
    { slot: 'granted', refund: false },
  ]);
  assert.deepEqual(released(play(running, claimed(), granted())[1]), [
    { slot: 'requested', refund: true },
    { slot: 'granted', refund: false },
  ]);
});

test('a grant for a turn that was refused is given back, and does not let a later one of its id run', () => {
  const error = refusal('AGENT_NOT_FOUND');
  const refused = { type: 'agentRefused', taskId: T, attempt: 1, error, atMs: 26 } as const;
  const again = [said('t', { replyTo: 2 }), found('t', 27, 2), claimed('t', 'requested', 0, 2)];
  const [second] = play(claiming, claimed(), refused, ...again);
  const [same, effects] = play(second, granted('t', 1));
  assert.equal(same, second);
  assert.deepEqual(effects, [{ type: 'release', taskId: T, attempt: 1, slot: 'granted', refund: false }]);
  const [still, crashed] = recoverSession(second, granted('t', 1));
  assert.deepEqual([still, crashed], [second, effects], 'also where the session crashes over it');
  assert.deepEqual(types(play(second, granted('t', 2))[1]), ['execute']);
});

test('what comes before history and tier are there is handled afterwards, in its order', () => {
  const [stashed, none] = play(fresh, said('t'), cancel(), said('u', { replyTo: 2 }));
  assert.deepEqual(none, []);
  const [live] = play(
    stashed,
    { type: 'joined', tier: 'professional', fixed: false },
    { type: 'loaded', history: [], interrupted: [] },
  );
  const [, effects] = play(live, found('u', 20, 2), found());
  assert.deepEqual(
    live.turns.map((turn) => [turn.taskId, turn.stopAtMs]),
    [
      ['t', 25],
      ['u', null],
    ],
  );
  assert.deepEqual(
    only(effects, 'requestAdmission').map(({ taskId: id, slot }) => [id, slot]),
    [
      ['u', 'none'],
      ['t', 'requested'],
    ],
  );
});

test('a session that can not be loaded answers all who wait, turns clients away, and stops', () => {
  const attach = { type: 'attach', clientId: 'c', tier: undefined, resume: undefined, atMs: 1 } as const;
  const inquire = { type: 'inquire', taskId: T, replyTo: 5 } as const;
  const [, effects] = play(fresh, said('t'), attach, inquire, { type: 'loadFailed', atMs: 2 });
  assert.deepEqual(types(effects), ['reply', 'untrack', 'turnAway', 'reply', 'closeClients', 'stop']);
  assert.deepEqual(replies(effects)[1], { replyTo: 5, value: null }, 'who inquires asks the store next');
  assert.deepEqual(play(running, { type: 'loadFailed', atMs: 2 })[1], [], 'a live session needs no loading');
});

test("a session's own rate limit refuses with the time to wait", () => {
  const limited = { ...idle, config: { ...CONFIG, requestsPerHour: 1 } };
  const [, effects] = play(limited, said('t', { atMs: 0 }), said('u', { atMs: 1_800_000, replyTo: 2 }));
  assert.equal(only(effects, 'refused')[0]?.code, 'RATE_LIMITED');
  assert.match(JSON.stringify(replies(effects)[0]?.value), /"retry_after_ms":180000\d/);
});

test('a draining session takes no new turns, and cancels all at the end of its grace', () => {
  const [busy] = play(running, said('u'), found('u'), claimed('u', 'none'), kept('u'));
  const [draining, notice] = play(busy, { type: 'drain', reconnectAfterMs: 77, atMs: 26 });
  assert.deepEqual(types(notice), ['notice']);
  assert.equal(only(play(draining, said('v'))[1], 'refused')[0]?.code, 'DRAINING');
  const [after, effects] = play(draining, { type: 'drainExpired', atMs: 40 });
  assert.deepEqual(only(effects, 'abort'), [{ type: 'abort', taskId: 't' }]);
  const [quiet, rest] = play(after, ended('t', aborted), kept('u', 'ended'), kept('t', 'ended'));
  assert.deepEqual([eventTypes(rest, 't'), eventTypes(rest, 'u')], [['chat.cancelled'], ['chat.cancelled']]);
  assert.deepEqual(quiet.turns, []);
  assert.deepEqual(types(play(quiet, { type: 'drained', replyTo: 3 })[1]), ['closeClients', 'reply']);
});

test('a session that is forgotten ends its turns first, then is deleted, and everybody is told', () => {
  const forget = (replyTo: number): SessionMessage => ({ type: 'forget', replyTo, atMs: 26 });
  const [leaving, effects] = play(running, forget(5), forget(6));
  assert.deepEqual(types(effects), ['abort']);
  assert.equal(only(play(leaving, said('u'))[1], 'refused')[0]?.code, 'CONFLICT');
  const [deleting, more] = play(leaving, ended('t', aborted), kept('t', 'ended'));
  assert.deepEqual(only(more, 'store').at(-1)?.step, 'deleted');
  assert.deepEqual(
    play(deleting, { type: 'idle' })[1],
    [],
    'it does not leave before the store has answered',
  );
  const deleted = { step: 'deleted', taskId: undefined, atMs: 50 } as const;
  const [, done] = play(deleting, { type: 'stored', duplicate: undefined, ...deleted });
  assert.deepEqual(types(done), ['reply', 'reply', 'closeClients', 'stop']);
  const [back, no] = play(deleting, { type: 'storeFailed', ...deleted });
  assert.deepEqual([types(no), back.forgetting], [['reply', 'reply'], null]);
});

test('a client is told of the turns that run and what was said in them; the last one to go leaves it idle', () => {
  const attach = { type: 'attach', clientId: 'c', tier: undefined, resume: undefined, atMs: 1 } as const;
  const [watched, effects] = play(running, attach);
  const [attached] = only(effects, 'attachClient');
  assert.deepEqual(attached?.ready.running, ['t']);
  assert.deepEqual(
    attached?.ready.messages.map(({ content }) => content),
    ['message t'],
  );
  const idling: SessionMessage = { type: 'idle' };
  assert.deepEqual(play(watched, idling)[1], []);
  assert.deepEqual(types(play(watched, { type: 'detach', clientId: 'c' }, idling)[1]), ['detachClient']);
  const [done] = play(watched, ended(), kept('t', 'ended'));
  assert.deepEqual(types(play(done, { type: 'detach', clientId: 'c' }, idling)[1]), [
    'detachClient',
    'leave',
  ]);
});

test('an idle session remembers nothing but its history and its last tasks', () => {
  let state = idle;
  for (let index = 0; index < 50; index += 1) {
    const id = `t${index}`;
    [state] = play(
      state,
      said(id),
      found(id),
      claimed(id),
      kept(id),
      granted(id),
      ended(id),
      kept(id, 'ended'),
    );
  }
  assert.equal(state.history?.length, 40);
  assert.equal(state.recent.length, 32);
  assert.deepEqual([state.turns, state.stash], [[], null]);
});

test('after a crash over a message its turn ends with INTERNAL, and the conversation is as it was', () => {
  const [refused, effects] = recoverSession(claiming, found());
  assert.deepEqual([refused.turns, replies(effects).length], [[], 1]);
  const [broken, more] = recoverSession(running, ended());
  assert.deepEqual(types(more), ['release', 'store']);
  assert.equal(broken.history, running.history);
  const [, over] = play(broken, kept('t', 'ended'));
  assert.deepEqual(eventTypes(over), ['error']);
});

test('a crash over what the store or the tenant said loses none of it', () => {
  const [, claim] = recoverSession(claiming, claimed());
  assert.deepEqual(released(claim), [{ slot: 'requested', refund: true }]);
  const [, grant] = recoverSession(waiting, granted());
  assert.deepEqual(released(grant), [{ slot: 'granted', refund: false }]);
  const [begun, effects] = recoverSession(writing, kept());
  assert.deepEqual([types(effects), begun], [['event', 'reply'], waiting]);
  assert.deepEqual(eventTypes(recoverSession(ending, kept('t', 'ended'))[1]), ['chat.response']);
});

test('a crash over the acceptance of a turn that runs does not free its slot before the run has ended', () => {
  const [early] = play(writing, granted());
  const [begun, effects] = recoverSession(early, kept());
  assert.deepEqual([eventTypes(effects), released(effects), begun], [['chat.accepted'], [], running]);
  const [, rest] = play(begun, ended(), kept('t', 'ended'));
  assert.deepEqual([released(rest).length, eventTypes(rest)], [1, ['chat.response']]);
});

test('a crash over a question answers it and leaves the turn alone', () => {
  for (const message of [said('t', { replyTo: 9 }), cancel()]) {
    const [state, effects] = recoverSession(running, message);
    assert.equal(state, running);
    assert.deepEqual(types(effects), ['reply']);
  }
  assert.deepEqual(types(recoverSession(idle, said('t'))[1]), ['reply', 'untrack']);
});

test('a session that is one turn’s own leaves with it, unless somebody watches; another stays until it is idle', () => {
  const alone = { type: 'loaded', history: [], interrupted: [] } as const;
  const entered = { type: 'joined', tier: 'professional', fixed: false } as const;
  const begin = (ephemeral: boolean) => newSession(TENANT, SESSION, CONFIG, 1, { ephemeral });
  const leaves = (effects: readonly SessionEffect[]) => only(effects, 'leave').length;

  const [waiting, none] = play(begin(true), alone, said('t'), entered);
  assert.equal(leaves(none), 0);
  const refusedTurn = {
    type: 'agentRefused',
    taskId: taskId('t'),
    attempt: 1,
    error: refusal('AGENT_NOT_FOUND'),
    atMs: 3,
  } as const;
  assert.equal(leaves(play(waiting, refusedTurn)[1]), 1);

  const watched = { type: 'attach', clientId: 'c', tier: undefined, resume: undefined, atMs: 2 } as const;
  const [seen, still] = play(waiting, watched, refusedTurn);
  assert.equal(leaves(still), 0);
  assert.equal(leaves(play(seen, { type: 'detach', clientId: 'c' })[1]), 1);

  assert.equal(leaves(play(begin(false), alone, said('t'), entered, refusedTurn)[1]), 0);
});
