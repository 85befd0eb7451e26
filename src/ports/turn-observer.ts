/** Watching one turn to its end: the same for the event stream of a turn, for executions, and for actions. */
import type { ErrorData } from '../domain/errors.ts';
import type { Frame } from '../domain/frames.ts';
import type { SessionId } from '../domain/ids.ts';
import type { SayReply, TurnRecord, TurnRequest } from '../domain/turn.ts';

export type Accepted = Extract<SayReply, { ok: true }>['accepted'];

/** Who watches a turn. */
export interface TurnWatcher {
  /** As a Client's: how long deltas may be held back to travel together, in ms. */
  readonly deltaWindowMs: number;
  /** As a Client's. */
  readonly reasoning?: boolean;
  /** Called with each frame of the turn in its order, the terminal one last. Nothing is written inside. */
  onFrame(frame: Frame): void;
}

/** Why nothing more is heard of a turn. */
export type ObservedEnd =
  /** It ended: this was its terminal frame, and the watcher has had it. */
  | { readonly type: 'frame'; readonly frame: Frame }
  /** It had ended before it was watched. The watcher has had no terminal frame. */
  | { readonly type: 'record'; readonly turn: TurnRecord }
  /** The session let go of its clients, or the node stops. The turn may go on. */
  | { readonly type: 'closed'; readonly by: 'session' | 'node' }
  /** Whether it has ended can not be found out. */
  | { readonly type: 'unreadable'; readonly error: ErrorData };

export interface ObservedTurn<W extends TurnWatcher> {
  readonly ok: true;
  readonly accepted: Accepted;
  /** As SayReply's. */
  readonly replying?: true;
  /** Of a repeated request: the session of the first. */
  readonly sessionId: SessionId;
  readonly watcher: W;
  /** Never rejects. Never settles where the watcher has left. */
  readonly ended: Promise<ObservedEnd>;
}

/**
 * Says turns and watches them as a client of their sessions; nothing is polled. Delivery: the watcher is attached before
 * the turn's first frame, hears every one, and then `ended` settles, once. Of a repeated request it hears the frames
 * after `after`, where that is given and the session still has them; else the acceptance without a number, then what the
 * turn still brings. close(): every watch ends as closed by the node, and so do later
 * ones; the turns go on.
 */
export interface TurnObserver {
  /**
   * Says the request. `watch` makes the watcher, and is told how it leaves before the end; it is called a second time
   * where the request turns out to be a repeated one, and the first watcher then hears nothing more. Rejects as
   * Directory.say does.
   */
  say<W extends TurnWatcher>(
    request: TurnRequest,
    watch: (leave: () => void) => W,
    after?: number,
  ): Promise<ObservedTurn<W> | { readonly ok: false; readonly error: ErrorData }>;
  close(): void;
}
