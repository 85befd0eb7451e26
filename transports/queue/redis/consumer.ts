/**
 * Takes actions off many queues by weight, as many as there are credits for, without ever asking in vain.
 *
 * One loop: while anything is known to wait and there is room, a script takes a batch; when all is known to be empty,
 * a BLMOVE waits on the queue that was busy last (blocking-reader.ts), and key tracking tells of all others.
 */
import { setTimeout as wait } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import { refusal } from '../../../src/domain/errors.ts';
import { enrolled, noTurns, served, shares, type Turns } from '../../../src/domain/fair-queue.ts';
import type { QueueName, Subscription } from '../../../src/domain/queues.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import type { ConsumeOptions, Consumption, Listener, TransportMeter } from '../../../src/ports/transport.ts';
import type { BodyReader } from '../body-reader.ts';
import { type TellDead, tellingDead } from '../delivery.ts';
import {
  BLOCK_MS,
  type BlockingReader,
  type BlockingReaderEvents,
  createBlockingReader,
} from './blocking-reader.ts';
import { connected, type Endpoint, isReply, openConnection, textOf, unavailable } from './connection.ts';
import { createInFlight, type InFlight, reconcile } from './in-flight.ts';
import type { KeyTracking } from './key-tracking.ts';
import { holdLease, type LeaseTimes } from './lease.ts';
import { createPace, type Pace } from './pace.ts';
import { createQueueSet, type QueueSet, type SubscriptionState } from './queue-set.ts';
import { itemsOf, takenKey, takeScript } from './scripts.ts';

/** Actions and bytes of one batch, and queues that one script looks at. */
const MAX_BATCH = 128;
const MAX_BATCH_BYTES = 8 * 1024 * 1024;
const MAX_SUBSCRIPTIONS = 256;
/** Everything is looked at anew that often, for whatever nobody has thought of. */
const AUDIT_MS = 5_000;
/** How long nothing is asked of a Redis that answers, but refuses. */
const REFUSED_MS = 1_000;
/** How long stop() tries to tell Redis what is done, while Redis is away. */
const MAX_SETTLE_MS = 2_000;

/** A consumer as others of its node see it: they may have to write dead letters of what it would have read. */
export interface NodeConsumer {
  covers(queue: QueueName): boolean;
  /** Queues that Redis does not let it take from. */
  barred(): readonly QueueName[];
  readonly tellDead: TellDead;
}

interface ConsumerSetup {
  readonly endpoint: Endpoint;
  readonly tracking: KeyTracking;
  /** Unique for every consumer of every start of every node. */
  readonly holder: string;
  readonly lease: LeaseTimes;
  readonly bodies: BodyReader;
  /** All consumers of this node; this one is added while it runs. */
  readonly consumers: Set<NodeConsumer>;
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
  const { tracking, log, meter, holder, consumers } = setup;
  const blocker = openConnection(setup.endpoint, 'blocker', BLOCK_MS);
  await connected(blocker);
  const parts = createParts(setup, blocker, listener, options);
  const { queueSet, inFlight, reader, loop, self, nextId, audit } = parts;
  await queueSet.listen(setup.endpoint).catch((error: unknown) => {
    reader.close();
    throw unavailable(error);
  });
  const lease = await holdLease(tracking, holder, setup.lease, {
    log,
    meter,
    nextId,
    returned: audit,
    poisoned: (poison) => inFlight.deadLetter({ ...poison, list: undefined }, abandoned),
  }).catch((error: unknown) => {
    reader.close();
    queueSet.close();
    throw unavailable(error);
  });
  const offReset = tracking.onReset(audit);
  const auditor = setInterval(audit, AUDIT_MS);
  consumers.add(self);
  for (const subscription of first) queueSet.add(subscription);
  if (options.patterns?.length) audit();
  const looping = loop.run();

  const shutDown = async (): Promise<void> => {
    loop.stop();
    await reader.unblock().catch(() => {});
    await looping;
    clearInterval(auditor);
    offReset();
    queueSet.close();
    inFlight.requeueAsides();
    await inFlight.idle();
    const settled = await settleAll(inFlight);
    await lease.release(settled && (await nothingLeft(parts)));
    consumers.delete(self);
    reader.close();
  };
  let stopping: Promise<void> | undefined;

  return {
    add: (subscription) => queueSet.add(subscription),
    async remove(queue) {
      queueSet.drop(queue);
      await parts.left(queue).catch(() => {});
    },
    stop() {
      stopping ??= shutDown();
      return stopping;
    },
  };
}

/** What a consumer is made of, and what its parts ask of each other. */
interface ConsumerParts {
  readonly tracking: KeyTracking;
  readonly taken: string;
  readonly credits: number;
  readonly queueSet: QueueSet;
  readonly inFlight: InFlight;
  readonly reader: BlockingReader;
  readonly pace: Pace;
  readonly loop: Loop;
  readonly self: NodeConsumer;
  turns: Turns;
  auditDue: boolean;
  /** Room for actions beside those that run, and the one that is waited for. */
  room(): number;
  /** The first of that many new ids. */
  nextId(count: number): number;
  /** Resolves when nobody waits on that queue. */
  left(queue: QueueName): Promise<void>;
  /** Everything is looked at anew, soon. */
  audit(): void;
}

function createParts(
  { tracking, log, meter, holder, consumers, bodies }: ConsumerSetup,
  blocker: Redis,
  listener: Listener,
  options: ConsumeOptions,
): ConsumerParts {
  const { credits, read, patterns = [] } = options;
  const taken = takenKey(holder);
  /** What Redis said when it refused last, while it does. */
  let refused: string | undefined;
  const loop = createLoop(async () => {
    if (!tracking.armed()) return;
    try {
      await advance(parts);
      if (refused !== undefined) log.info({ error: refused }, 'Redis lets actions be taken again');
      refused = undefined;
    } catch (error) {
      parts.auditDue = true;
      if (refused !== textOf(error)) log.warn({ error: textOf(error) }, 'taking actions broke off');
      // The reset that follows a reconnect, or the next audit, brings us back.
      if (!isReply(error)) return;
      refused = textOf(error);
      // Whatever wakes us now would be refused alike.
      await wait(REFUSED_MS);
      loop.wake();
    }
  });
  let lastId = 0;
  const nextId = (count: number): number => {
    lastId += count;
    return lastId - count + 1;
  };
  const audit = (): void => {
    parts.auditDue = true;
    loop.wake();
  };
  const waitingOn = (): QueueName | undefined => reader.waitingOn();
  const changed = (queue: QueueName): void => {
    // What comes there comes through the blocking reader.
    if (waitingOn() === queue) return;
    queueSet.mistrust(queue);
    loop.wake();
  };
  const left = async (queue: QueueName): Promise<void> => {
    if (waitingOn() === queue) await reader.unblock();
  };
  const room = (): number => credits - inFlight.running() - (waitingOn() === undefined ? 0 : 1);
  const queueSet = createQueueSet(tracking, patterns, { changed, wake: loop.wake, lost: audit, waitingOn });
  const self: NodeConsumer = {
    covers: queueSet.covers,
    barred: queueSet.barred,
    tellDead: tellingDead(options, { log, bodies }),
  };
  const inFlight = createInFlight(
    {
      ...{ tracking, taken, log, meter, bodies, read, left, returned: changed },
      tellDead(queue, body, error) {
        const reads = [self, ...consumers].find(({ covers }) => covers(queue)) ?? self;
        reads.tellDead(queue, body, error);
      },
      pause(queue, error) {
        queueSet.pause(queue, error);
        // Where that fails the connection is gone, and with it whatever waits.
        left(queue).catch(() => {});
      },
      freed() {
        // Only where there was no room before: otherwise the loop has nothing to do that it had not a moment ago.
        if (room() <= 1) loop.wake();
      },
    },
    listener,
  );
  const events = readerEvents(() => parts);
  const reader = createBlockingReader(tracking, blocker, { name: holder, taken }, log, events);
  const parts: ConsumerParts = {
    ...{ tracking, taken, credits, queueSet, inFlight, reader, pace: createPace(), loop, self },
    ...{ turns: noTurns, auditDue: false, room, nextId, left, audit },
  };
  return parts;
}

const readerEvents = (parts: () => ConsumerParts): BlockingReaderEvents => ({
  arrived(source, body) {
    const { pace, inFlight, nextId } = parts();
    pace.arrived();
    inFlight.start({ id: String(nextId(1)), ...source, body });
  },
  mayGoOn(queue) {
    const { loop, auditDue, room, tracking, queueSet, pace } = parts();
    if (loop.isStopped() || auditDue || room() < 0 || !tracking.armed()) return false;
    if (!queueSet.has(queue) || queueSet.isPaused(queue)) return false;
    return pace.mayGoOn() && queueSet.waiting().length === 0;
  },
  ended(queue, failed) {
    const { pace, queueSet, loop } = parts();
    if (failed) pace.failed();
    if (queue) queueSet.mistrust(queue);
    if (!failed) loop.wake();
  },
});

/** Does what is to be done now; returns when the loop must wait to be woken. */
async function advance(parts: ConsumerParts): Promise<void> {
  const { tracking, queueSet, inFlight, reader, pace, loop, credits, room } = parts;
  if (parts.auditDue) {
    await reconcile(parts);
    await queueSet.search();
    queueSet.mistrustAll();
    parts.auditDue = false;
  }
  for (;;) {
    const waiting = queueSet.waiting();
    if (waiting.length > 0 && room() <= 0 && inFlight.running() < credits) await reader.unblock();
    const free = Math.min(room(), MAX_BATCH);
    if (loop.isStopped() || !tracking.armed()) return;
    if (waiting.length > 0 && free > 0) {
      parts.turns = enrolled(parts.turns, waiting);
      const counts = shares(parts.turns, waiting, free);
      // The lengths of those that get nothing now are worth knowing only while they are not known.
      const asked = waiting.filter(
        ({ subscription, length }) => counts.has(subscription) || !Number.isFinite(length),
      );
      await take(parts, asked.slice(0, MAX_SUBSCRIPTIONS), counts);
    } else {
      const next = queueSet.next(pace.hot());
      if (waiting.length > 0 || free <= 0 || next === undefined) return;
      if (pace.isElsewhere() && reader.waitingOn() !== next) await reader.unblock();
      if (!reader.canWait()) return;
      pace.waits();
      await reader.wait(next);
      return;
    }
  }
}

/** Runs the script over some subscriptions; what it took is started before anything else happens. */
async function take(
  parts: ConsumerParts,
  asked: readonly SubscriptionState[],
  counts: ReadonlyMap<Subscription, number>,
): Promise<void> {
  const { tracking, taken, inFlight, pace, queueSet, nextId } = parts;
  const before = asked.map(({ changes }) => changes);
  const keys = [taken, ...asked.map(({ subscription }) => subscription.queue)];
  const wanted = asked.map(({ subscription }) => counts.get(subscription) ?? 0);
  const firstId = nextId(wanted.reduce((sum, count) => sum + count, 0));
  const args = [firstId, MAX_BATCH_BYTES, ...wanted];
  let reply: readonly unknown[];
  try {
    reply = itemsOf(await takeScript(tracking.reader, keys, args));
  } catch (error) {
    return bar(parts, asked, error);
  }
  const items = itemsOf(reply[0]);
  let last: QueueName | undefined;
  for (let at = 0; at < items.length; at += 3) {
    const subscription = asked[Number(items[at + 1]) - 1]?.subscription;
    const body = items[at + 2];
    if (!subscription) continue;
    last = subscription.queue;
    if (Buffer.isBuffer(body)) inFlight.start({ id: String(items[at]), queue: last, body, list: undefined });
    parts.turns = served(parts.turns, subscription);
  }
  pace.took(items.length / 3, last);
  const lengths = itemsOf(reply[1]);
  for (const [at, state] of asked.entries()) {
    queueSet.unbar(state.subscription.queue);
    const length = Number(lengths[at] ?? 0);
    state.length = length === 0 && state.changes !== before[at] ? Number.POSITIVE_INFINITY : length;
  }
}

/** Finds the queues that this user of Redis may not take from, so that the others are served; rejects where there are none. */
async function bar(
  { tracking, taken, queueSet }: ConsumerParts,
  asked: readonly SubscriptionState[],
  refused: unknown,
): Promise<void> {
  const isBarred = (error: unknown): boolean => textOf(error).startsWith('NOPERM');
  if (!isBarred(refused)) throw refused;
  const found = await Promise.all(
    asked.map(({ subscription: { queue } }) =>
      takeScript(tracking.reader, [taken, queue], [0, 0, 0]).then(
        () => false,
        (error: unknown) => isBarred(error),
      ),
    ),
  );
  if (!found.includes(true)) throw refused;
  for (const [at, { subscription }] of asked.entries()) if (found[at]) queueSet.bar(subscription.queue);
}

interface Loop {
  wake(): void;
  isStopped(): boolean;
  /** It ends after the step that runs. */
  stop(): void;
  /** One step now, and another after every wake. Resolves when it has stopped. */
  run(): Promise<void>;
}

function createLoop(step: () => Promise<void>): Loop {
  let stopped = false;
  let woken = false;
  let wakeUp = (): void => {};
  const wake = (): void => {
    woken = true;
    wakeUp();
  };
  return {
    wake,
    isStopped: () => stopped,
    stop() {
      stopped = true;
      wake();
    },
    async run() {
      while (!stopped) {
        woken = false;
        await step();
        if (woken || stopped) continue;
        await new Promise<void>((resolve) => {
          wakeUp = resolve;
        });
      }
    },
  };
}

/** Settles what is left while Redis answers; what cannot be settled is requeued by another node. */
async function settleAll(inFlight: InFlight): Promise<boolean> {
  const deadline = performance.now() + MAX_SETTLE_MS;
  do {
    await inFlight.flush();
    if (inFlight.unsettled() === 0) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  } while (performance.now() < deadline);
  return false;
}

const abandoned = refusal('POISON', {
  message: 'Its receivers died while they worked on it.',
});

async function nothingLeft({ tracking, taken }: ConsumerParts): Promise<boolean> {
  const ids = await tracking.reader.hkeys(taken).catch(() => ['1']);
  return ids.every((id) => id.startsWith('hot:'));
}
