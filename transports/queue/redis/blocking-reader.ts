/**
 * Waits on the one queue that was busy last, so that there an action arrives by itself, one hop after its LPUSH.
 *
 * BLMOVE moves it into a list of this consumer, where a dead consumer's actions are found. It waits only
 * while everything else is known to be empty, and holds one credit while it waits.
 */
import type { Redis } from 'ioredis';
import type { QueueName } from '../../../src/domain/queues.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import { closeConnection, textOf } from './connection.ts';
import type { KeyTracking } from './key-tracking.ts';
import { intakeKey } from './scripts.ts';

/** How long one BLMOVE blocks; well under a lease, so that none outlives its consumer's lease on a dead connection. */
export const BLOCK_MS = 2_000;
/** How long a list is looked at after its connection broke: a server that stood still may yet move into it. */
const STALE_MS = 60_000;
/** How long a registration is trusted: while we stood still another node may have taken us for dead and cleared it. */
const REGISTER_MS = 5_000;
/** An UNBLOCK that overtakes its BLMOVE finds nothing to unblock. */
const UNBLOCK_RETRY_MS = 1;

/** Where a list's bodies came from. */
interface Source {
  readonly list: string;
  readonly queue: QueueName;
}

export interface BlockingReader {
  /** The queue it waits on. */
  waitingOn(): QueueName | undefined;
  canWait(): boolean;
  /** Begins to wait, and goes on as long as it may. */
  wait(queue: QueueName): Promise<void>;
  /** Ends the waiting; what arrives at that moment still arrives. */
  unblock(): Promise<void>;
  /** Lists that may hold what nobody was told of. */
  leftBehind(): readonly Source[];
  close(): void;
}

export interface BlockingReaderEvents {
  arrived(source: Source, body: Buffer): void;
  /** Asked after each arrival, and when nothing came for a while. */
  mayGoOn(queue: QueueName): boolean;
  /** From now on nobody waits on that queue, or on none (a new connection). `failed`: do not try again at once. */
  ended(queue: QueueName | undefined, failed: boolean): void;
}

export function createBlockingReader(
  tracking: KeyTracking,
  blocker: Redis,
  holder: { readonly name: string; readonly taken: string },
  log: Log,
  events: BlockingReaderEvents,
): BlockingReader {
  const registration = createRegistration(tracking, blocker, holder);
  let waiting: { readonly queue: QueueName; readonly over: Promise<void> } | undefined;
  /** Callers that want it to end. */
  let unblocking = 0;
  let stale: readonly (Source & { readonly sinceMs: number })[] = [];

  const reconnected = (): void => events.ended(undefined, false);
  blocker.on('ready', reconnected);

  const move = async (source: Source): Promise<void> => {
    let failed = false;
    try {
      do {
        const body = await blocker.blmoveBuffer(source.queue, source.list, 'RIGHT', 'LEFT', BLOCK_MS / 1_000);
        if (body) {
          events.arrived(source, body);
          // What the listener writes at once goes out first: each write costs what a short answer takes.
          await new Promise(process.nextTick);
        }
      } while (unblocking === 0 && registration.isFresh() && events.mayGoOn(source.queue));
    } catch (error) {
      failed = true;
      log.debug({ queue: source.queue, error: textOf(error) }, 'a blocking read broke off');
      stale = [...stale, { ...source, sinceMs: performance.now() }];
      registration.renew();
    }
    await over(source.queue, failed);
  };
  const over = async (queue: QueueName, failed: boolean): Promise<void> => {
    waiting = undefined;
    events.ended(queue, failed);
  };

  return {
    waitingOn: () => waiting?.queue,
    canWait: () => waiting === undefined && blocker.status === 'ready',
    async wait(queue) {
      const ready = registration.of(queue);
      const begin = (source: Source): Promise<void> => (unblocking > 0 ? over(queue, false) : move(source));
      // From here on it counts as waiting: whoever wants nothing more from there must not come too early.
      waiting = { queue, over: ready.then(begin, () => over(queue, true)) };
      await ready;
    },
    async unblock() {
      unblocking += 1;
      try {
        while (waiting) {
          const { over } = waiting;
          const id = registration.blockerId();
          const count = id === undefined ? 0 : await tracking.reader.client('UNBLOCK', id);
          if (count === 1) await over;
          else await Promise.race([over, new Promise((resolve) => setTimeout(resolve, UNBLOCK_RETRY_MS))]);
        }
      } finally {
        unblocking -= 1;
      }
    },
    leftBehind() {
      const now = performance.now();
      stale = stale.filter(({ sinceMs }) => now - sinceMs < STALE_MS);
      return stale;
    },
    close() {
      blocker.off('ready', reconnected);
      closeConnection(blocker);
    },
  };
}

interface Registration {
  /** Says in Redis where this consumer's next list is filled from: whoever finds it must know. */
  of(queue: QueueName): Promise<Source>;
  isFresh(): boolean;
  /** From now on it is another list. */
  renew(): void;
  /** The blocker's name for UNBLOCK, while it is known. */
  blockerId(): number | undefined;
}

function createRegistration(
  tracking: KeyTracking,
  blocker: Redis,
  holder: { readonly name: string; readonly taken: string },
): Registration {
  let generation = 0;
  let registered: (Source & { readonly atMs: number }) | undefined;
  let blockerId: number | undefined;
  blocker.on('close', () => {
    blockerId = undefined;
  });

  const isFresh = (): boolean =>
    registered !== undefined && performance.now() - registered.atMs < REGISTER_MS;
  const list = (): string => intakeKey(holder.name, generation);

  return {
    async of(queue) {
      blockerId ??= await blocker.client('ID');
      if (registered?.list === list() && registered.queue === queue && isFresh()) return registered;
      // What still lies in a list must not change its origin.
      if (registered?.list === list() && registered.queue !== queue) generation += 1;
      const source = { list: list(), queue };
      await tracking.reader.hset(holder.taken, `hot:${source.list}`, queue);
      registered = { ...source, atMs: performance.now() };
      return source;
    },
    isFresh,
    renew() {
      generation += 1;
    },
    blockerId: () => blockerId,
  };
}
