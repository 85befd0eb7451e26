/** A turn's way into its session: prepared, kept, accepted, or found to be a resend. Pure. */
import { type AgentConfig, refuseAgent } from '../src/domain/agent.ts';
import { refusal } from '../src/domain/errors.ts';
import type { EventData } from '../src/domain/frames.ts';
import type { SayReply } from '../src/ports.ts';
import type { SessionEffect, SessionStep } from './session-effect.ts';
import { drop, keepAccepted, refuse, settle } from './session-endings.ts';
import { limitsOf, runNext } from './session-line.ts';
import { findTurn, type SessionState, type Turn, withTurn } from './session-state.ts';

/** After this long a client may try again when its task is just being taken back. */
const TAKEN_BACK_RETRY_MS = 100;

/** Goes on with a turn whose agent or claim came in: once both are there it is checked, kept, and run. */
export function advance(state: SessionState, { taskId }: Turn, atMs: number): SessionStep {
  const turn = findTurn(state, taskId);
  if (!turn?.agent || turn.claim === 'asked') return [state, []];
  if (turn.ended || turn.dropped) return settle(state, turn, atMs);
  const refused = refuseAgent(turn.agent, limitsOf(state), state.tier ?? 'free');
  if (refused) return refuse(state, turn, refused, atMs);
  const [kept, effects] = turn.kept === 'no' ? keepAccepted(state, turn) : ([state, []] as const);
  const [started, more] = runNext(kept);
  return [started, [...effects, ...more]];
}

/** Turns that wait will run the newer version, those aside that asked for one of their own. */
export function withNewerAgent(state: SessionState, agent: AgentConfig): SessionState {
  const outdated = (turn: Turn): boolean =>
    turn.agentId === agent.id &&
    turn.agentVersion === undefined &&
    !turn.executing &&
    turn.agent !== null &&
    turn.agent.version < agent.version;
  if (!state.turns.some(outdated)) return state;
  return { ...state, turns: state.turns.map((turn) => (outdated(turn) ? { ...turn, agent } : turn)) };
}

/** The store holds the turn: everybody is told, and what its execution has written so far goes out. */
export function accepted(state: SessionState, turn: Turn, atMs: number): SessionStep {
  const data = acceptedData(turn);
  const next = resumed(withTurn(state, turn.taskId, { kept: 'yes', callers: [] }), turn);
  const effects: SessionEffect[] = [
    { type: 'event', taskId: turn.taskId, event: { type: 'chat.accepted', data }, atMs },
    ...turn.callers.map(
      ({ replyTo, duplicate }): SessionEffect => ({
        type: 'reply',
        replyTo,
        value: sayReply(turn, duplicate ? { ...data, deduplicated: true } : data),
      }),
    ),
  ];
  const kept = findTurn(next, turn.taskId);
  const [settled, more] = kept?.ended ? settle(next, kept, atMs) : runNext(next);
  return [settled, [...effects, ...more]];
}

/** A turn that runs again brings its question anew, and nobody is to be told any more that it was interrupted. */
function resumed(state: SessionState, { again, taskId }: Turn): SessionState {
  if (!again) return state;
  return {
    ...state,
    history: state.history?.filter((message) => message.taskId !== taskId) ?? null,
    untold: state.untold.filter((record) => record.taskId !== taskId),
  };
}

/** One object for all: every session's log keeps one for each of its turns. */
const PROCESSING: EventData['chat.accepted'] = { status: 'processing', position: 0 };

function acceptedData(turn: Turn): EventData['chat.accepted'] {
  const position = turn.executing ? 0 : turn.position;
  return position === 0 ? PROCESSING : { status: 'queued', position };
}

const sayReply = (turn: Turn, data: EventData['chat.accepted']): SayReply => ({
  ok: true,
  taskId: turn.taskId,
  accepted: data,
});

/** A resend of a task that lives here: told again where it stands, and nothing else happens. */
export function resent(state: SessionState, turn: Turn, replyTo: number, atMs: number): SessionStep {
  const { taskId } = turn;
  if (turn.dropped) {
    const error = refusal('BUSY', { retryAfterMs: TAKEN_BACK_RETRY_MS });
    return [state, [{ type: 'reply', replyTo, value: { ok: false, taskId, error } satisfies SayReply }]];
  }
  if (turn.kept !== 'yes')
    return [withTurn(state, taskId, { callers: [...turn.callers, { replyTo, duplicate: true }] }), []];
  const data = { ...acceptedData(turn), deduplicated: true as const };
  return [
    state,
    [
      { type: 'event', taskId, event: { type: 'chat.accepted', data }, atMs },
      { type: 'reply', replyTo, value: sayReply(turn, data) },
    ],
  ];
}

/** The store has a turn of this id from before: the caller is told so, and what began here is undone. */
export function duplicate(state: SessionState, turn: Turn, atMs: number): SessionStep {
  const data = { status: 'processing', position: 0, deduplicated: true } as const;
  const effects: SessionEffect[] = [
    { type: 'discard', taskId: turn.taskId },
    { type: 'event', taskId: turn.taskId, event: { type: 'chat.accepted', data }, atMs },
    ...turn.callers.map(
      ({ replyTo }): SessionEffect => ({ type: 'reply', replyTo, value: sayReply(turn, data) }),
    ),
  ];
  return drop(state, turn, effects, atMs);
}
