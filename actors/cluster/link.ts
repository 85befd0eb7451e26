/**
 * One link between two nodes, seen from either end: bundles are numbered on one side, and on the other it is found out
 * when something is missing. Pure.
 *
 * The first item goes at once; what gathers while a bundle is on its way goes as the next one. Nothing is sent again:
 * whoever misses something asks for it.
 */
import { emptyFifo, type Fifo, pushed, shifted } from '../../src/domain/fifo.ts';
import type { LinkItem } from '../../src/ports/links.ts';

/** Items and rough bytes of one bundle; a larger item goes alone. */
export const MAX_BUNDLE_ITEMS = 256;
export const MAX_BUNDLE_BYTES = 256 * 1024;
/** Bundles in the inbox of a peer: beyond, it is asked nothing new; beyond the second, no frames and broadcasts. */
export const MANY_UNREAD = 1_000;
export const TOO_MANY_UNREAD = 4_000;
/** Items and rough bytes that wait here for the bundle before them. */
const MAX_WAITING = 8_192;
const MAX_WAITING_BYTES = 16 * 1024 * 1024;

interface Weighed {
  readonly item: LinkItem;
  readonly bytes: number;
}

/** The way to a peer. */
export interface OutgoingState {
  readonly linkId: string;
  /** The number of the newest bundle. Never less than before under one link id. */
  readonly n: number;
  /** The items of the bundle that is on its way. */
  readonly underWay: readonly LinkItem[] | undefined;
  readonly waiting: Fifo<Weighed>;
  readonly waitingBytes: number;
  /** Bundles in the peer's inbox, as it was told last. */
  readonly unread: number;
  /** The newest bundle could not be put there. */
  readonly isAway: boolean;
  /** Something that was to go there was dropped, and the peer can not know it yet. */
  readonly isTorn: boolean;
}

export type OutgoingMessage =
  /** `bytes`: roughly. */
  | { readonly type: 'sent'; readonly item: LinkItem; readonly bytes: number }
  | { readonly type: 'pushed'; readonly unread: number }
  | { readonly type: 'failed' };

export type OutgoingEffect =
  | { readonly type: 'push'; readonly n: number; readonly items: readonly LinkItem[] }
  /** These will not arrive, or nobody knows whether they did. */
  | { readonly type: 'undelivered'; readonly items: readonly LinkItem[] };

type Step = readonly [OutgoingState, readonly OutgoingEffect[]];

/** `linkId`: a new random one, also for a peer that had another before. */
export const newOutgoing = (linkId: string): OutgoingState => ({
  ...{ linkId, n: 0, underWay: undefined, waiting: emptyFifo, waitingBytes: 0 },
  ...{ unread: 0, isAway: false, isTorn: false },
});

/** The next state, and what is to be done; at most one bundle is on its way at a time. */
export function outgoing(state: OutgoingState, message: OutgoingMessage): Step {
  switch (message.type) {
    case 'sent':
      return sent(state, message);
    case 'pushed': {
      const { unread } = message;
      return next({ ...state, unread, underWay: undefined, isAway: false });
    }
    case 'failed':
      return failed(state);
  }
}

/** Whether a new question may go there: `away` and `full` are to be answered at once. */
export const mayAsk = ({ isAway, unread, waiting }: OutgoingState): 'yes' | 'away' | 'full' =>
  isAway ? 'away' : unread > MANY_UNREAD || waiting.size >= MAX_WAITING ? 'full' : 'yes';

function sent(state: OutgoingState, { item, bytes }: Weighed): Step {
  const isFull = state.waiting.size >= MAX_WAITING || state.waitingBytes + bytes > MAX_WAITING_BYTES;
  const mayBeLost = item.kind === 'frames' || item.kind === 'broadcast';
  const isHeld = mayBeLost && state.unread > TOO_MANY_UNREAD;
  // While the medium is away a tick tries; what else is sent would only wait to be lost.
  if ((isFull && state.underWay) || isHeld || (state.isAway && item.kind !== 'tick'))
    return [{ ...state, isTorn: true }, [{ type: 'undelivered', items: [item] }]];
  const waiting = pushed(state.waiting, { item, bytes });
  const waits = { ...state, waiting, waitingBytes: state.waitingBytes + bytes };
  return state.underWay ? [waits, []] : next(waits);
}

/** What waited is given up with it: whoever asked must hear at once, and frames are asked for again. */
function failed(state: OutgoingState): Step {
  const dropped: LinkItem[] = [...(state.underWay ?? [])];
  for (let rest = shifted(state.waiting); rest; rest = shifted(rest.rest)) dropped.push(rest.item.item);
  const empty = { underWay: undefined, waiting: emptyFifo, waitingBytes: 0 };
  return [{ ...state, ...empty, isAway: true, isTorn: true }, [{ type: 'undelivered', items: dropped }]];
}

/** Puts what waits into a bundle. A number is left out where something was dropped, so that the peer finds out. */
function next(state: OutgoingState): Step {
  let { waiting, waitingBytes } = state;
  const items: LinkItem[] = [];
  let bytes = 0;
  for (let first = shifted(waiting); first; first = shifted(waiting)) {
    const isFull = items.length === MAX_BUNDLE_ITEMS || bytes + first.item.bytes > MAX_BUNDLE_BYTES;
    if (items.length > 0 && isFull) break;
    items.push(first.item.item);
    bytes += first.item.bytes;
    waiting = first.rest;
  }
  if (items.length === 0) return [state, []];
  waitingBytes -= bytes;
  const n = state.n + (state.isTorn ? 2 : 1);
  return [
    { ...state, n, waiting, waitingBytes, underWay: items, isTorn: false },
    [{ type: 'push', n, items }],
  ];
}

// --- The other end -------------------------------------------------------------------------------------------

/** What has come from a peer. */
export interface IncomingState {
  readonly linkId: string;
  readonly n: number;
}

/** `torn`: it is new, and something before it is missing. `repeated`: it has been here. */
export type Arrival = 'next' | 'torn' | 'repeated';

/** The next state, and what a bundle is. The first one ever of a peer is torn unless it is number 1. */
export function incoming(
  state: IncomingState | undefined,
  { linkId, n }: IncomingState,
): readonly [IncomingState, Arrival] {
  if (state && state.linkId === linkId && n <= state.n) return [state, 'repeated'];
  const isNext = state ? state.linkId === linkId && n === state.n + 1 : n === 1;
  return [{ linkId, n }, isNext ? 'next' : 'torn'];
}

/** Rough bytes of an item: its texts, and something for each value. */
export function roughBytes(item: LinkItem): number {
  if (item.kind !== 'frames') return weigh(item);
  let bytes = 32;
  for (const [clientId] of item.to) bytes += clientId.length + 8;
  for (const { text, type } of item.frames) bytes += text.length + type.length + 32;
  return bytes;
}

function weigh(value: unknown): number {
  if (typeof value === 'string') return value.length + 4;
  if (typeof value !== 'object' || value === null) return 8;
  let bytes = 8;
  for (const [name, each] of Object.entries(value)) bytes += name.length + weigh(each);
  return bytes;
}
