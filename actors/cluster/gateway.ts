/**
 * A client of this node whose session lives on another one: finds the owner, attaches there, passes on what comes, and
 * mends it unseen by the client where something is missing. Pure; one state a client.
 *
 * An attachment has a generation. What comes for an older one is dropped: it may be from before a gap.
 */
import { z } from 'zod';
import { CLOSE, type Close, type ErrorData, refusal } from '../../src/domain/errors.ts';
import type { Boot } from '../../src/ports/cluster.ts';
import type { CrossingFrame } from '../../src/ports/links.ts';
import type { ResumePoint } from '../../src/ports/sessions.ts';
import type { LinkOutcome } from './links.ts';

/** Owners that are tried before a client is sent away. */
const MAX_FINDS = 5;
/** Before the next owner is looked for: at once where a session has moved, later where nobody answered. */
const MOVED_MS = 5;
const SILENT_MS = 300;
/** Mends are at least so far apart; one that was not answered is tried again after the second. */
const MEND_MS = 50;
const MEND_AGAIN_MS = 500;
/** Mends in a row without an answer: 10 s where Redis is away. */
const MAX_MENDS = 20;

export interface RemoteClientState {
  /**
   * `finding`: nobody knows yet where its session is. `attaching`: it waits for what it was attached for. `mending`:
   * something was missing, and it will be or was attached again. `gone`: nothing more comes of it.
   */
  readonly phase: 'finding' | 'attaching' | 'attached' | 'mending' | 'gone';
  readonly owner: Boot | undefined;
  readonly generation: number;
  /** Owners that were looked for, or mends in a row. */
  readonly tries: number;
  /** A mend is about to begin. */
  readonly isDue: boolean;
  /** It has been sent `session.ready`, or is never to be. */
  readonly isGreeted: boolean;
  /** It hears a turn, from `say` on, and is never greeted. */
  readonly watches: boolean;
  /** What it *has*, not what its owner gave out. */
  readonly resume: ResumePoint | undefined;
}

/** Where a session is, as far as it can be said. */
export type FoundPlace =
  | { readonly at: 'here' }
  | { readonly at: 'there'; readonly owner: Boot }
  | { readonly at: 'unknown'; readonly error: ErrorData };

export type RemoteClientMessage =
  | { readonly type: 'found'; readonly generation: number; readonly place: FoundPlace }
  | { readonly type: 'answered'; readonly generation: number; readonly outcome: LinkOutcome }
  | {
      readonly type: 'frames';
      readonly from: Boot;
      readonly generation: number;
      readonly frames: readonly CrossingFrame[];
    }
  /** Something that came from that node is missing. */
  | { readonly type: 'torn'; readonly from: Boot }
  /** The mend that was to begin later. */
  | { readonly type: 'due' }
  /** The owner lets it go. */
  | { readonly type: 'released'; readonly from: Boot; readonly generation: number; readonly close: Close }
  /** That node is dead. */
  | { readonly type: 'lost'; readonly boot: Boot }
  /** That node was not heard of for long: whether it lives is not known. */
  | { readonly type: 'silent'; readonly boot: Boot }
  /** The client itself has gone. */
  | { readonly type: 'left' };

export type RemoteClientEffect =
  | { readonly type: 'find'; readonly generation: number; readonly afterMs: number }
  /** `again`: it was attached there before, and is not to move its session. */
  | { readonly type: 'attach'; readonly owner: Boot; readonly generation: number; readonly again: boolean }
  | { readonly type: 'mend'; readonly afterMs: number }
  /** The session lives here by now: the client is its own from now on. */
  | { readonly type: 'attachHere' }
  | { readonly type: 'pass'; readonly frames: readonly CrossingFrame[] }
  | { readonly type: 'detach'; readonly owner: Boot }
  /** What is known of where the session is holds no longer. */
  | { readonly type: 'moved' }
  /** The owner could not be reached: it is asked through the database. */
  | { readonly type: 'want'; readonly owner: Boot }
  | { readonly type: 'refuse'; readonly error: ErrorData }
  | { readonly type: 'close'; readonly close: Close };

type Step = readonly [RemoteClientState, readonly RemoteClientEffect[]];

const NEW = { phase: 'finding', owner: undefined, generation: 1, tries: 0, isDue: false } as const;

/** A client that attaches. Its owner is about to be looked for. */
export const newRemoteClient = (resume: ResumePoint | undefined): RemoteClientState => ({
  ...NEW,
  ...{ isGreeted: false, watches: false, resume },
});

/** An observer that goes with what is said to that owner. */
export const newRemoteWatcher = (owner: Boot, resume: ResumePoint): RemoteClientState => ({
  ...NEW,
  ...{ phase: 'attaching', owner, isGreeted: true, watches: true, resume },
});

/** The next state and what is to be done. */
export function remoteClient(state: RemoteClientState, message: RemoteClientMessage): Step {
  if (state.phase === 'gone') return [state, []];
  switch (message.type) {
    case 'found':
      return message.generation === state.generation ? found(state, message.place) : [state, []];
    case 'answered':
      return message.generation === state.generation ? answered(state, message.outcome) : [state, []];
    case 'frames':
      return isCurrent(state, message) ? heard(state, message.frames) : [state, []];
    case 'torn':
      return message.from === state.owner ? torn(state) : [state, []];
    case 'due':
      return state.isDue ? attach({ ...state, isDue: false }) : [state, []];
    case 'released':
      return isCurrent(state, message)
        ? ended(state, [{ type: 'close', close: message.close }])
        : [state, []];
    case 'lost':
      return message.boot === state.owner ? lost(state) : [state, []];
    case 'silent':
      // One that is not greeted yet has a question under way, which ends by itself.
      return message.boot === state.owner && state.isGreeted ? letGo(state) : [state, []];
    case 'left':
      return ended(state, detached(state));
  }
}

const isCurrent = (
  { owner, generation }: RemoteClientState,
  message: { readonly from: Boot; readonly generation: number },
): boolean => message.from === owner && message.generation === generation;

const ended = (state: RemoteClientState, effects: readonly RemoteClientEffect[]): Step => [
  { ...state, phase: 'gone' },
  effects,
];

function found(state: RemoteClientState, place: FoundPlace): Step {
  if (place.at === 'here') return ended(state, [{ type: 'attachHere' }]);
  if (place.at === 'unknown') return ended(state, [{ type: 'refuse', error: place.error }]);
  return attach({ ...state, phase: 'attaching', owner: place.owner });
}

/** Asks its owner for it, as of what it has now. */
function attach(state: RemoteClientState): Step {
  const { owner, generation, isGreeted, phase } = state;
  if (owner === undefined) return [state, []];
  return [state, [{ type: 'attach', owner, generation, again: isGreeted || phase === 'mending' }]];
}

function answered(state: RemoteClientState, outcome: LinkOutcome): Step {
  if (outcome.type === 'ok')
    // An answer says that it is attached; frames say so too, and may have come before.
    return [{ ...state, phase: 'attached', tries: 0 }, []];
  // What came for this generation proves that it is attached, whatever became of the answer.
  if (state.phase === 'attached') return [state, []];
  if (outcome.type === 'refused') return ended(state, [{ type: 'refuse', error: outcome.error }]);
  if (outcome.type === 'notMine') return state.isGreeted ? letGo(state) : elsewhere(state, 'moved');
  if (state.isGreeted)
    return state.tries < MAX_MENDS ? mend(state, MEND_AGAIN_MS) : after(detached(state), letGo(state));
  const isFull = outcome.type === 'lost' && outcome.why === 'full';
  return isFull
    ? ended(state, [{ type: 'refuse', error: refusal('OVERLOADED', { retryAfterMs: 1_000 }) }])
    : after(detached(state), elsewhere(state, 'silent'));
}

/** For an owner that may have heard of it, and did not say so. */
const detached = ({ owner }: RemoteClientState): readonly RemoteClientEffect[] =>
  owner === undefined ? [] : [{ type: 'detach', owner }];

const after = (before: readonly RemoteClientEffect[], [state, effects]: Step): Step => [
  state,
  [...before, ...effects],
];

/** It had what its owner can no longer give: it comes back as it likes, and is told what it missed. */
const letGo = (state: RemoteClientState): Step =>
  ended(state, [{ type: 'moved' }, { type: 'close', close: CLOSE.restart }]);

/** Before it was greeted nothing is lost: whoever has the session by now is looked for. */
function elsewhere(state: RemoteClientState, why: 'moved' | 'silent'): Step {
  const { owner } = state;
  const wanted = why === 'silent' && owner !== undefined ? [{ type: 'want', owner } as const] : [];
  const before: readonly RemoteClientEffect[] = [...wanted, { type: 'moved' }];
  const tries = state.tries + 1;
  if (tries > MAX_FINDS)
    return ended(state, [...before, { type: 'refuse', error: refusal('TRANSPORT_UNAVAILABLE') }]);
  const generation = state.generation + 1;
  return [
    { ...state, phase: 'finding', owner: undefined, generation, tries, isDue: false },
    [...before, { type: 'find', generation, afterMs: why === 'moved' ? MOVED_MS : SILENT_MS }],
  ];
}

/** From here on nothing counts that was sent before the owner hears of it. */
function torn(state: RemoteClientState): Step {
  if (state.phase === 'finding') return [state, []];
  if (state.isDue) return [{ ...state, generation: state.generation + 1 }, []];
  return mend(state, MEND_MS);
}

function mend(state: RemoteClientState, afterMs: number): Step {
  const generation = state.generation + 1;
  return [
    { ...state, phase: 'mending', generation, tries: state.tries + 1, isDue: true },
    [{ type: 'mend', afterMs }],
  ];
}

function lost(state: RemoteClientState): Step {
  return state.isGreeted ? letGo(state) : elsewhere(state, 'moved');
}

const readySchema = z.object({
  data: z.object({ epoch: z.string(), seq: z.number(), recovered: z.boolean().optional() }),
});

function heard(state: RemoteClientState, frames: readonly CrossingFrame[]): Step {
  let next: RemoteClientState = { ...state, phase: 'attached', tries: 0, isDue: false };
  const passed: CrossingFrame[] = [];
  for (const frame of frames)
    if (frame.type !== 'session.ready') {
      if (frame.seq !== undefined) next = { ...next, resume: at(next, frame.seq) };
      passed.push(frame);
    } else {
      const { epoch, seq, recovered } = readySchema.parse(JSON.parse(frame.text)).data;
      // What a watcher missed can not be had any more: whoever watches reads the turn itself.
      if (state.watches && recovered !== true) return letGo(state);
      if (recovered === true && next.isGreeted) continue;
      // Unless it is recovered the client begins at that number; else it has what it has, and the rest follows.
      if (recovered !== true) next = { ...next, resume: { epoch, lastSeq: seq } };
      next = { ...next, isGreeted: true };
      passed.push(frame);
    }
  return [next, passed.length > 0 ? [{ type: 'pass', frames: passed }] : []];
}

const at = ({ resume }: RemoteClientState, lastSeq: number): ResumePoint => ({
  ...(resume ?? { epoch: undefined }),
  lastSeq,
});
