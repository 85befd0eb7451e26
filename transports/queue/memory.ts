/** The transport of a single node: queues in this process. Bodies are bytes here too, so that nothing is shared. */
import { LRUCache } from 'lru-cache';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import {
  enrolled,
  nextSubscription,
  noTurns,
  served,
  type WaitingQueue,
} from '../../src/domain/fair-queue.ts';
import {
  afterFailure,
  isNoticeQueue,
  MAX_UNREAD_NOTICES,
  patternSubscription,
  type QueueName,
  repliesQueue,
  type Subscription,
} from '../../src/domain/queues.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import type {
  ActionFormat,
  ConsumeOptions,
  Consumption,
  DeadLetter,
  DeadLetters,
  Listener,
  Place,
  Sendable,
  Transport,
  TransportMeter,
} from '../../src/ports/transport.ts';
import { encodeAction } from '../wire/codec.ts';
import { type BodyReader, createBodyReader } from './body-reader.ts';
import {
  bodyOf,
  createPauses,
  deadLetter,
  deliver,
  MAX_ASIDE,
  MAX_DEAD_LETTERS,
  sized,
  tellingDead,
} from './delivery.ts';
import { closed, createRequests, MAX_REPLY_QUEUES } from './requests.ts';

/** Bytes that may wait on all queues together; beyond, senders are refused. */
const MAX_WAITING_BYTES = 256 * 1024 * 1024;

interface Item {
  readonly body: Uint8Array;
  readonly deliveries: number;
  /** Its place among all that were ever put on a queue. */
  readonly order: number;
}

export interface MemoryTransport extends Transport {
  /** Puts a body on a queue as a stranger would. */
  push(queue: QueueName, body: Uint8Array): void;
}

export function createMemoryTransport(log: Log, meter: TransportMeter): MemoryTransport {
  const consumers = new Set<Consumer>();
  const queues = createQueues(() => {
    for (const consumer of consumers) consumer.takeMore();
  });
  const dead = new Map<QueueName, DeadLetter[]>();
  const shared = repliesQueue('here');
  const bodies = createBodyReader();
  const requests = createRequests(shared, { log, meter, bodies });
  /** Reply queues of single requests, each with its correlation id: a late reply is known as such for a while. */
  const replyQueues = new LRUCache<QueueName, string>({ max: MAX_REPLY_QUEUES });
  let isClosed = false;

  const push = (queue: QueueName, body: Uint8Array): void => {
    queues.admit(queue, body);
    const only = replyQueues.get(queue);
    if (only !== undefined || queue === shared) queueMicrotask(() => requests.reply(body, only));
    else queues.add(queue, body);
    if (!isNoticeQueue(queue)) return;
    // All readers are in this process: without one, nobody will ever miss a notice.
    const isRead = [...consumers].some((consumer) => consumer.takesFrom(queue));
    queues.trim(queue, isRead ? MAX_UNREAD_NOTICES : 0);
  };

  const addDead = (letter: DeadLetter): void => {
    dead.set(letter.queue, [letter, ...(dead.get(letter.queue) ?? [])].slice(0, MAX_DEAD_LETTERS));
    meter.counted('action.dead', 1);
    log.warn({ queue: letter.queue, id: letter.id, code: letter.error.code }, 'an action is dead');
  };

  const ping = async (): Promise<void> => {
    if (isClosed) throw closed();
  };

  return {
    push,
    async send(queue: QueueName, message: Sendable, format: ActionFormat) {
      if (isClosed) throw closed();
      push(queue, sized(encodeAction(message, format)));
    },
    async request(queue, action, options) {
      if (isClosed) throw closed();
      return requests.run(queue, action, options, async (sending) => {
        if (options.replyQueue) replyQueues.set(sending.replyQueue, sending.correlationId);
        push(queue, sized(encodeAction(sending.action, options.format)));
      });
    },
    async consume(subscriptions, listener, options): Promise<Consumption> {
      if (isClosed) throw closed();
      const consumer = createConsumer(
        { queues, addDead, bodies, log, meter },
        subscriptions,
        listener,
        options,
      );
      consumers.add(consumer);
      queueMicrotask(consumer.takeMore);
      return {
        add: consumer.add,
        remove: consumer.remove,
        async stop() {
          consumers.delete(consumer);
          await consumer.stop();
        },
      };
    },
    replied: (reply) => requests.replied(reply),
    dead: deadLetters(dead, push),
    ping,
    ready: ping,
    async close() {
      isClosed = true;
      await Promise.all([...consumers].map((consumer) => consumer.stop()));
      consumers.clear();
      requests.close();
      await bodies.close();
    },
  };
}

interface Queues {
  /** Names of those that hold something. */
  names(): readonly QueueName[];
  length(queue: QueueName): number;
  /** Throws OVERLOADED where there is no room for that body, or what was sent before it was refused just now. */
  admit(queue: QueueName, body: Uint8Array): void;
  add(queue: QueueName, body: Uint8Array): void;
  /** Back to the front, behind what is older still. */
  requeue(queue: QueueName, item: Item): void;
  /** The oldest item. */
  take(queue: QueueName): Item | undefined;
  /** Drops the oldest until no more than that many are left. */
  trim(queue: QueueName, most: number): void;
}

/** `filled` is called after the tick in which a queue got something. */
function createQueues(filled: () => void): Queues {
  /** Oldest last: a plain array is a fine list for what a node keeps up with. */
  const queues = new Map<QueueName, Item[]>();
  /** A sender cannot have heard of these refusals yet: what follows must not overtake what was refused. */
  const refusing = new Set<QueueName>();
  let waitingBytes = 0;
  let lastOrder = 0;

  const length = (queue: QueueName): number => queues.get(queue)?.length ?? 0;
  const requeue = (queue: QueueName, item: Item): void => {
    const items = queues.get(queue) ?? [];
    if ((items[0]?.order ?? 0) < item.order) items.unshift(item);
    else items.splice(items.findLastIndex(({ order }) => order > item.order) + 1, 0, item);
    queues.set(queue, items);
    waitingBytes += item.body.length;
    queueMicrotask(filled);
  };
  const take = (queue: QueueName): Item | undefined => {
    const items = queues.get(queue);
    const item = items?.pop();
    if (items?.length === 0) queues.delete(queue);
    waitingBytes -= item?.body.length ?? 0;
    return item;
  };
  return {
    names: () => [...queues.keys()],
    length,
    admit(queue, body) {
      if (!refusing.has(queue) && waitingBytes + body.length <= MAX_WAITING_BYTES) return;
      refusing.add(queue);
      setImmediate(() => refusing.delete(queue));
      throw new RefusalError(refusal('OVERLOADED'));
    },
    add(queue, body) {
      lastOrder += 1;
      requeue(queue, { body, deliveries: 0, order: lastOrder });
    },
    requeue,
    take,
    trim(queue, most) {
      while (length(queue) > most) take(queue);
    },
  };
}

interface ConsumerDeps {
  readonly queues: Queues;
  readonly addDead: (letter: DeadLetter) => void;
  readonly bodies: BodyReader;
  readonly log: Log;
  readonly meter: TransportMeter;
}

interface Consumer extends Consumption {
  takesFrom(queue: QueueName): boolean;
  /** Starts what waits, as far as there are credits. */
  takeMore(): void;
}

function createConsumer(
  { queues, addDead, bodies, log, meter }: ConsumerDeps,
  first: readonly Subscription[],
  listener: Listener,
  options: ConsumeOptions,
): Consumer {
  const { credits, read, patterns = [] } = options;
  const tellDead = tellingDead(options, { log, bodies });
  const subscriptions = new Map(first.map((subscription) => [subscription.queue, subscription]));
  const running = new Set<Promise<void>>();
  const asides = new Map<Item, { readonly queue: QueueName; readonly place: Place }>();
  let turns = noTurns;
  let stopped = false;

  const subscriptionOf = (queue: QueueName): Subscription | null =>
    subscriptions.get(queue) ?? patternSubscription(patterns, queue);
  const waiting = (): readonly WaitingQueue[] => {
    const names = patterns.length === 0 ? [] : queues.names();
    const found = names.flatMap((queue) => (subscriptions.has(queue) ? [] : (subscriptionOf(queue) ?? [])));
    return [...subscriptions.values(), ...found].map((subscription) => {
      const { queue } = subscription;
      return { subscription, length: pauses.has(queue) ? 0 : queues.length(queue) };
    });
  };
  const requeueAside = (queue: QueueName, item: Item, place: Place): void => {
    place.leave();
    meter.counted('action.returned', 1);
    queues.requeue(queue, item);
  };
  const setAside = async (queue: QueueName, item: Item, place: Place): Promise<void> => {
    if (stopped) return requeueAside(queue, item, place);
    asides.set(item, { queue, place });
    await place.granted;
    if (asides.delete(item)) begin(queue, item, place);
  };
  const begin = (queue: QueueName, item: Item, place?: Place): void => {
    const done = work(queue, item, place).finally(() => {
      running.delete(done);
      takeMore();
    });
    running.add(done);
  };
  const work = async (queue: QueueName, item: Item, place?: Place): Promise<void> => {
    const verdict = await deliver(queue, item.body, listener, { log, bodies, read }, place);
    if (verdict.type === 'done') return;
    if (verdict.type === 'aside') return void setAside(queue, item, verdict.place);
    const deliveries = item.deliveries + 1;
    if (verdict.type === 'requeue') {
      pauses.pause(queue, verdict.error);
      meter.counted('action.returned', 1);
      queues.requeue(queue, item);
    } else if (verdict.type === 'malformed' || afterFailure(deliveries) === 'dead') {
      addDead(deadLetter(queue, item.body, verdict.error));
      tellDead(queue, item.body, verdict.error);
    } else {
      meter.counted('action.redelivered', 1);
      queues.requeue(queue, { ...item, deliveries });
    }
  };
  const takeMore = (): void => {
    while (!stopped && running.size + Math.max(0, asides.size - MAX_ASIDE) < credits) {
      turns = enrolled(turns, waiting());
      const subscription = nextSubscription(turns);
      const item = subscription && queues.take(subscription.queue);
      if (!subscription || !item) return;
      turns = served(turns, subscription);
      begin(subscription.queue, item);
    }
  };
  const pauses = createPauses(takeMore);

  return {
    takesFrom: (queue) => subscriptionOf(queue) !== null,
    takeMore,
    add(subscription) {
      if (!subscriptions.has(subscription.queue)) subscriptions.set(subscription.queue, subscription);
      queueMicrotask(takeMore);
    },
    async remove(queue) {
      subscriptions.delete(queue);
    },
    async stop() {
      stopped = true;
      const waiting = [...asides];
      asides.clear();
      for (const [item, { queue, place }] of waiting) requeueAside(queue, item, place);
      while (running.size > 0) await Promise.all(running);
      pauses.close();
    },
  };
}

function deadLetters(
  dead: Map<QueueName, DeadLetter[]>,
  push: (queue: QueueName, body: Uint8Array) => void,
): DeadLetters {
  const removed = (queue: QueueName, matches: (letter: DeadLetter) => boolean): readonly DeadLetter[] => {
    const letters = dead.get(queue) ?? [];
    const left = letters.filter((letter) => !matches(letter));
    if (left.length === 0) dead.delete(queue);
    else dead.set(queue, left);
    return letters.filter(matches);
  };
  return {
    queues: async () => [...dead.keys()],
    list: async (queue, limit) => (dead.get(queue) ?? []).slice(0, limit),
    async replay(queue, id) {
      const chosen = removed(queue, (letter) => letter.replayable && (id === undefined || letter.id === id));
      for (const letter of [...chosen].reverse()) push(queue, bodyOf(letter));
      return chosen.length;
    },
    drop: async (queue, id) => removed(queue, (letter) => id === undefined || letter.id === id).length,
  };
}
