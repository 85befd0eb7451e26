/** The relay of the transactional outbox: stores replies together with the turns that they tell of, and sends them. */
import { RefusalError, refusal } from '../domain/errors.ts';
import type { Relay } from '../ports/outbox.ts';
import type { Outgoing, Store, Write, WriteOutcome } from '../ports/store.ts';
import type { Log } from '../ports/telemetry.ts';
import type { Transport } from '../ports/transport.ts';
import { createCatchUp } from './catch-up.ts';
import type { KeptEnds, KeptWrite } from './kept-ends.ts';
import { createInOrder, createLines } from './lines.ts';
import { attempt, createAcks, createSend, giveUp, passes, RELAY_TIMING, type RelayTiming } from './sender.ts';
import { checked, createTurnReplies, madeBy, type ReplyOf, turnOutgoing } from './turn-replies.ts';

type TurnEnded = Extract<Write, { type: 'turn-ended' }>;

export interface RelayDeps {
  readonly store: Store;
  readonly transport: Pick<Transport, 'send' | 'ping'>;
  readonly log: Log;
  /** Where ends wait while the store is out, closed with the relay; absent: they are refused. */
  readonly ends?: KeptEnds;
  /** When replies are made, in ms since the epoch. */
  readonly now?: () => number;
  /** Makes the message of a turn's reply. */
  readonly replyOf?: ReplyOf;
  /** What else is to be stored and sent with the end of a turn. Called in the tick of the commit. */
  readonly onTurnEnded?: ((write: TurnEnded) => readonly Outgoing[]) | undefined;
  readonly timing?: Partial<RelayTiming>;
  /** From 0 to 1, for the jitter. */
  readonly random?: () => number;
}

/**
 * Makes the relay. Until start() it stores and sends nothing; then a queue's messages go from memory as they are stored,
 * or, where the queue refused, too much waits, or the fate of a write is unknown, are read from the store until all of
 * them were taken. In memory: `maxInMemory` messages, the ids of the last ones sent, and those that the store was not told.
 * Order inside a queue rests on the transport: what it is given behind something that it refuses it must refuse too,
 * as long as it has not told of the refusal.
 */
export function createRelay(deps: RelayDeps): Relay {
  const { store, transport, log, ends, onTurnEnded, random = Math.random } = deps;
  const { now = Date.now, replyOf = turnOutgoing(now) } = deps;
  const timing = { ...RELAY_TIMING, ...deps.timing };
  const acks = createAcks({ store, log, timing, random });
  const send = createSend({ transport, acks, log });
  const replies = createTurnReplies(log, replyOf);
  const lines = createLines({ send, timing, onLag: () => started && catchUp.wake('soon') });
  const catchUp = createCatchUp({ lines, store, transport, send, log, timing, random });
  const inOrder = createInOrder(lines);
  let started = false;
  let closing: Promise<void> | undefined;

  /** Gives it to the store, or keeps it until that can take it. */
  async function put(write: Write): Promise<WriteOutcome> {
    if (!ends || !isKept(write)) return store.commit(write);
    if (ends.waiting.length > 0) return ends.keep(write);
    try {
      return await store.commit(write);
    } catch (error) {
      return ends.keep(write, error);
    }
  }

  function commit(write: Write): Promise<WriteOutcome> {
    if (write.type === 'turn-ended') return commitEnd(write);
    const result = put(write);
    return write.type === 'outgoing' ? inOrder.add(write.outgoing, result) : result;
  }

  function commitEnd(write: TurnEnded): Promise<WriteOutcome> {
    const due = write.replies ? replies.due(write.turn, write.replies) : NOTHING;
    const hooked = onTurnEnded ? madeBy(() => onTurnEnded(write), write.turn, log) : null;
    const made = [...due.outgoing, ...(hooked ?? [])];
    const given = write.outgoing ?? [];
    if (made.length === 0) return settling(inOrder.add(given, put(write)), due.settle);
    const outgoing = [...given, ...made];
    const full = inOrder.add(outgoing, put({ ...write, outgoing }));
    return settling(full, due.settle).catch((error: unknown) => {
      if (error instanceof RefusalError) throw error;
      // Not the store's state but what was to be stored: the turn's end must not be lost with it.
      const { tenantId, taskId } = write.turn;
      log.error(
        { err: error, tenant_id: tenantId, task_id: taskId },
        'what a turn had to send was not stored',
      );
      return inOrder.add(given, put(write));
    });
  }

  async function close(): Promise<void> {
    await ends?.close();
    await within(timing.closeMs, Promise.all([catchUp.close(), lines.drain()]));
    lines.abandon();
    await within(timing.closeMs, acks.close());
  }

  return {
    store: {
      ...store,
      commit,
      turn: async (tenantId, taskId) => ends?.turn(tenantId, taskId) ?? store.turn(tenantId, taskId),
    },
    replied: replies.brought,
    forgo: replies.forgo,
    async write(outgoing) {
      if (outgoing.length > 0) await commit({ type: 'outgoing', outgoing: outgoing.map(storable) });
    },
    async resend(outgoing) {
      const error = await attempt(transport, outgoing);
      if (error && passes(error)) throw error;
      if (error) giveUp(log, outgoing, error);
    },
    endStats: () => ends?.stats() ?? { waiting: 0, bytes: 0, lost: 0 },
    start() {
      started = true;
      catchUp.wake('now');
    },
    lookAgain() {
      lines.lagAll();
      if (started) catchUp.wake('now');
    },
    close() {
      closing ??= close();
      return closing;
    },
  };
}

/** Of most turns. */
const NOTHING: ReturnType<ReturnType<typeof createTurnReplies>['due']> = { outgoing: [], settle: () => {} };

const KEPT: ReadonlySet<Write['type']> = new Set<KeptWrite['type']>([
  'turn-ended',
  'turn-overtaken',
  'turn-notified',
  'session-released',
]);
const isKept = (write: Write): write is KeptWrite => KEPT.has(write.type);

/** The message, or INVALID_REQUEST where it could not be read again. */
function storable(outgoing: Outgoing): Outgoing {
  try {
    return checked(outgoing);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new RefusalError(refusal('INVALID_REQUEST', { message }));
  }
}

/** Says whether it was stored before whoever waits for the result goes on. */
async function settling(
  result: Promise<WriteOutcome>,
  settle: (stored: boolean) => void,
): Promise<WriteOutcome> {
  let outcome: WriteOutcome | undefined;
  try {
    outcome = await result;
    return outcome;
  } finally {
    settle(outcome === 'stored');
  }
}

/** Resolves with the work, or after `ms`. What it comes to is dropped, errors too. */
async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([work.catch(() => {}), late]);
  clearTimeout(timer);
}
