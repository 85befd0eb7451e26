/**
 * Takes actions off many queues by weight, as many as there are credits for, without ever asking in vain.
 *
 * One loop: while anything is known to wait and there is room, a script takes a batch; when all is known to be empty,
 * a BLMOVE waits on the queue that was busy last (intake.ts) and the watch tells of all others (watch.ts).
 */
import { type ErrorData, refusal } from '../../../src/domain/errors.ts';
import { enrolled, noTurns, served, shares } from '../../../src/domain/fair-queue.ts';
import type { QueueName, Subscription } from '../../../src/domain/queues.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import type { ConsumeOptions, Consumption, Listener, TransportMeter } from '../../../src/ports/transport.ts';
import { type TellDead, tellingDead } from '../delivery.ts';
import { BLOCK_MS, createBlockingReader } from './blocking-reader.ts';
import { connected, type Endpoint, openConnection, textOf, unavailable } from './connection.ts';
import { createInFlight, reconcile } from './in-flight.ts';
import type { KeyTracking } from './key-tracking.ts';
import { holdLease, type LeaseTimes } from './lease.ts';
import { createQueueSet, type SubscriptionState } from './queue-set.ts';
import { itemsOf, takenKey, takeScript } from './scripts.ts';

/** Actions that come one by one before a script looks whether more are there; doubled each time that none are. */
const MAX_PATIENCE = 32;
/** Batches in a row from other queues than the one that is waited on, after which to wait on theirs. */
const MAX_ELSEWHERE = 3;
/** Actions and bytes of one batch, and queues that one script looks at. */
const MAX_BATCH = 128;
const MAX_BATCH_BYTES = 8 * 1024 * 1024;
const MAX_SUBSCRIPTIONS = 256;
/** Everything is looked at anew that often, for whatever nobody has thought of. */
const AUDIT_MS = 5_000;
/** How long stop() tries to tell Redis what is done, while Redis is away. */
const MAX_SETTLE_MS = 2_000;

/** A consumer as others of its node see it: they may have to bury what it would have read. */
export interface Reader {
  covers(queue: QueueName): boolean;
  readonly tellDead: TellDead;
}

interface ConsumerSetup {
  readonly endpoint: Endpoint;
  readonly watch: KeyTracking;
  /** Unique for every consumer of every start of every node. */
  readonly holder: string;
  readonly lease: LeaseTimes;
  /** All consumers of this node; this one is added while it runs. */
  readonly readers: Set<Reader>;
  readonly log: Log;
  readonly meter: TransportMeter;
}

/** Resolves when it is taking; rejects with TRANSPORT_UNAVAILABLE where Redis is away. */
export async function startConsumer(
  setup: ConsumerSetup,
  first: readonly Subscription[],
  listener: Listener,
  options: ConsumeOptions,
): Promise<Consumption> {
  const { watch, log, meter, holder, readers } = setup;
  const { credits, read, patterns = [] } = options;
  const taken = takenKey(holder);
  const blocker = openConnection(setup.endpoint, 'blocker', BLOCK_MS);
  await connected(blocker);

  let turns = noTurns;
  /** The queue to wait on next, and how often it was not the one that was waited on. */
  let hot: QueueName | undefined;
  let elsewhere = 0;
  /** What came through the intake since a script looked last, and how much of it is due before one looks again. */
  let inARow = 0;
  let patience = 1;
  let lastId = 0;
  let auditDue = false;
  let stopped = false;
  let wakeUp: (() => void) | undefined;
  let woken = false;

  const wake = (): void => {
    woken = true;
    wakeUp?.();
  };
  const nextId = (count: number): number => {
    const id = lastId + 1;
    lastId += count;
    return id;
  };
  const changed = (queue: QueueName): void => {
    // What comes there comes through the intake.
    if (reader.waitingOn() === queue) return;
    queueSet.mistrust(queue);
    wake();
  };
  const left = async (queue: QueueName): Promise<void> => {
    if (reader.waitingOn() === queue) await reader.unblock();
  };
  const pause = (queue: QueueName, error: ErrorData): void => {
    queueSet.pause(queue, error);
    // Where that fails the connection is gone, and with it whatever waits.
    left(queue).catch(() => {});
  };
  /** Only where there was no room before: otherwise the loop has nothing to do that it had not a moment ago. */
  const freed = (): void => {
    if (room() <= 1) wake();
  };
  const audit = (): void => {
    auditDue = true;
    wake();
  };

  const queueSet = createQueueSet(watch, patterns, {
    changed,
    wake,
    lost: audit,
    waitingOn: () => reader.waitingOn(),
  });
  const self: Reader = { covers: queueSet.covers, tellDead: tellingDead(options, log) };
  const tellDead: TellDead = (queue, body, error) => {
    const mine = [self, ...readers].find(({ covers }) => covers(queue)) ?? self;
    mine.tellDead(queue, body, error);
  };
  const inFlight = createInFlight(
    { watch, taken, log, meter, read, freed, returned: changed, pause, left, tellDead },
    listener,
  );
  const reader = createBlockingReader(watch, blocker, { name: holder, taken }, log, {
    arrived(source, body) {
      elsewhere = 0;
      inARow += 1;
      inFlight.start({ id: String(nextId(1)), ...source, body });
    },
    mayGoOn(queue) {
      if (stopped || auditDue || room() < 0 || !watch.armed()) return false;
      if (!queueSet.has(queue) || queueSet.isPaused(queue)) return false;
      // More may be waiting there than come one by one: now and then a script looks, and takes them at once.
      return inARow < patience && queueSet.waiting().length === 0 && elsewhere < MAX_ELSEWHERE;
    },
    ended(queue, failed) {
      if (failed) hot = undefined;
      if (queue) queueSet.mistrust(queue);
      if (!failed) wake();
    },
  });

  /** Runs the script over some subscriptions; what it took is started before anything else happens. */
  const take = async (
    asked: readonly SubscriptionState[],
    counts: ReadonlyMap<Subscription, number>,
  ): Promise<void> => {
    const before = asked.map(({ changes }) => changes);
    const keys = [taken, ...asked.map(({ subscription }) => subscription.queue)];
    const wanted = asked.map(({ subscription }) => counts.get(subscription) ?? 0);
    const firstId = nextId(wanted.reduce((sum, count) => sum + count, 0));
    const reply = itemsOf(await takeScript(watch.reader, keys, [firstId, MAX_BATCH_BYTES, ...wanted]));
    const items = itemsOf(reply[0]);
    for (let at = 0; at < items.length; at += 3) {
      const subscription = asked[Number(items[at + 1]) - 1]?.subscription;
      start(String(items[at]), subscription?.queue, items[at + 2]);
      if (subscription) turns = served(turns, subscription);
      hot = subscription?.queue ?? hot;
    }
    if (items.length > 0) elsewhere += 1;
    inARow = 0;
    patience = items.length > 3 ? 1 : Math.min(2 * patience, MAX_PATIENCE);
    const left = itemsOf(reply[1]);
    for (const [at, state] of asked.entries()) {
      const length = Number(left[at] ?? 0);
      state.length = length === 0 && state.changes !== before[at] ? Number.POSITIVE_INFINITY : length;
    }
  };

  const start = (id: string, queue: QueueName | undefined, body: unknown): void => {
    if (queue && Buffer.isBuffer(body)) inFlight.start({ id, queue, body, list: undefined });
  };

  const room = (): number => credits - inFlight.running() - (reader.waitingOn() === undefined ? 0 : 1);

  /** Does what is to be done now; returns when the loop must wait to be woken. */
  const advance = async (): Promise<void> => {
    if (auditDue) {
      await reconcile({ watch, taken, held: inFlight, intake: reader, nextId, room });
      await queueSet.search();
      queueSet.mistrustAll();
      auditDue = false;
    }
    for (;;) {
      const waiting = queueSet.waiting();
      if (waiting.length > 0 && room() <= 0 && inFlight.running() < credits) await reader.unblock();
      const free = Math.min(room(), MAX_BATCH);
      if (stopped || !watch.armed()) return;
      if (waiting.length > 0 && free > 0) {
        turns = enrolled(turns, waiting);
        const counts = shares(turns, waiting, free);
        // The lengths of those that get nothing now are worth knowing only while they are not known.
        const asked = waiting.filter(
          ({ subscription, length }) => counts.has(subscription) || !Number.isFinite(length),
        );
        await take(asked.slice(0, MAX_SUBSCRIPTIONS), counts);
      } else {
        const next = queueSet.next(hot);
        if (waiting.length > 0 || free <= 0 || next === undefined) return;
        if (elsewhere >= MAX_ELSEWHERE && reader.waitingOn() !== next) await reader.unblock();
        if (!reader.canWait()) return;
        elsewhere = 0;
        await reader.wait(next);
        return;
      }
    }
  };

  const run = async (): Promise<void> => {
    while (!stopped) {
      woken = false;
      if (watch.armed()) {
        await advance().catch((error: unknown) => {
          // The reset that follows a reconnect, or the next audit, brings us back.
          auditDue = true;
          log.warn({ error: textOf(error) }, 'taking actions broke off');
        });
      }
      if (!woken && !stopped) {
        await new Promise<void>((resolve) => {
          wakeUp = resolve;
        });
        wakeUp = undefined;
      }
    }
  };

  await queueSet.listen(setup.endpoint).catch((error: unknown) => {
    reader.close();
    throw unavailable(error);
  });
  const lease = await holdLease(watch, holder, setup.lease, {
    log,
    meter,
    nextId,
    returned: audit,
    bury: (poison) => inFlight.deadLetter({ ...poison, list: undefined }, abandoned),
  }).catch((error: unknown) => {
    reader.close();
    queueSet.close();
    throw unavailable(error);
  });
  const offReset = watch.onReset(audit);
  const auditor = setInterval(audit, AUDIT_MS);
  readers.add(self);
  for (const subscription of first) queueSet.add(subscription);
  if (patterns.length > 0) audit();
  const loop = run();

  /** Settles what is left while Redis answers; what cannot be settled is given back by another node. */
  const settleAll = async (): Promise<boolean> => {
    const deadline = performance.now() + MAX_SETTLE_MS;
    do {
      await inFlight.flush();
      if (inFlight.unsettled() === 0) return true;
      await new Promise((resolve) => setTimeout(resolve, 50));
    } while (performance.now() < deadline);
    return false;
  };

  const shutDown = async (): Promise<void> => {
    stopped = true;
    wake();
    await reader.unblock().catch(() => {});
    await loop;
    clearInterval(auditor);
    offReset();
    queueSet.close();
    await inFlight.idle();
    const settled = await settleAll();
    await lease.release(settled && (await nothingLeft(watch, taken)));
    readers.delete(self);
    reader.close();
  };
  let stopping: Promise<void> | undefined;

  return {
    add: (subscription) => queueSet.add(subscription),
    async remove(queue) {
      queueSet.drop(queue);
      await left(queue).catch(() => {});
    },
    stop() {
      stopping ??= shutDown();
      return stopping;
    },
  };
}

const abandoned = refusal('POISON', {
  message: 'Its receivers died while they worked on it.',
});

const nothingLeft = async (watch: KeyTracking, taken: string): Promise<boolean> => {
  const ids = await watch.reader.hkeys(taken).catch(() => ['1']);
  return ids.every((id) => id.startsWith('hot:'));
};
