/** How a session's clients hear of turns that a stopped process left unfinished. Pure. */
import type { TurnRecord } from '../src/domain/conversation.ts';
import { refusal } from '../src/domain/errors.ts';
import type { SessionEffect, SessionStep } from './session-effect.ts';
import { atOf, findTurn, type SessionMessage, type SessionState } from './session-state.ts';

/**
 * Tells what is untold as soon as a client is there. A turn that may run again keeps its clients waiting until the
 * store has said so: it would end twice for them.
 */
export function thenTell(step: SessionStep, message: SessionMessage): SessionStep {
  const [state, effects] = step;
  if (state.untold.length === 0 || state.clients.length === 0) return step;
  const waits = ({ taskId }: TurnRecord): boolean => findTurn(state, taskId) !== undefined;
  const due = state.untold.filter((turn) => !waits(turn));
  if (due.length === 0) return step;
  const atMs = atOf(message);
  const next: SessionState = { ...state, untold: state.untold.filter(waits) };
  return [next, [...effects, ...due.flatMap((turn) => tellInterrupted(turn, atMs))]];
}

/** It ends for its clients too, once. */
function tellInterrupted({ tenantId, taskId, error }: TurnRecord, atMs: number): SessionEffect[] {
  const event = { type: 'error', data: error ?? refusal('INTERRUPTED') } as const;
  const write = { type: 'turn-told', tenantId, taskId } as const;
  return [
    { type: 'event', taskId, event, atMs },
    { type: 'keep', step: 'told', taskId, write, wait: true },
  ];
}
