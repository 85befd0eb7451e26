/** The transport of a single node: queues in this process. Bodies are bytes here too, so that nothing is shared. */
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
  Sendable,
  Transport,
  TransportMeter,
} from '../../src/ports/transport.ts';
import { encodeAction } from '../wire/codec.ts';
import {
  bodyOf,
  createPauses,
  deadLetter,
  deliver,
  MAX_DEAD_LETTERS,
  sized,
  tellingDead,
} from './delivery.ts';
import { closed, createRequests, MAX_OWN_LISTS, type Sending } from './requests.ts';

/** Bytes that may wait on all queues together; beyond, senders are refused. */
const MAX_WAITING_BYTES = 256 * 1024 * 1024;

interface Item {
  readonly body: Uint8Array;
  readonly deliveries: number;
  /** Its place among all that were ever put on a queue. */
  readonly order: number;
}

interface Consumer {
  readonly subscriptions: Map<QueueName, Subscription>;
  takesFrom(queue: QueueName): boolean;
  look(): void;
  stop(): Promise<void>;
}

export interface MemoryTransport extends Transport {
  /** Puts a body on a queue as a stranger would. */
  push(queue: QueueName, body: Uint8Array): void;
}

export function createMemoryTransport(log: Log, meter: TransportMeter): MemoryTransport {
  /** Oldest last: a plain array is a fine list for what a node keeps up with. */
  const queues = new Map<QueueName, Item[]>();
  const dead = new Map<QueueName, DeadLetter[]>();
  const consumers = new Set<Consumer>();
  const requests = createRequests(repliesQueue('here'), log, meter);
  /** Lists that one request named for its reply. They are remembered a while, so that a late reply is known as such. */
  const ownLists = new Map<QueueName, string>();
  let waitingBytes = 0;
  let lastOrder = 0;
  let isClosed = false;

  const wake = (): void => {
    for (const consumer of consumers) consumer.look();
  };

  /** New ones go to the back; what comes again goes to the front, behind what is older still. */
  const put = (queue: QueueName, item: Item): void => {
    const items = queues.get(queue) ?? [];
    if ((items[0]?.order ?? 0) < item.order) items.unshift(item);
    else items.splice(items.findLastIndex(({ order }) => order > item.order) + 1, 0, item);
    queues.set(queue, items);
    waitingBytes += item.body.length;
    queueMicrotask(wake);
  };

  /** What is sent behind something refused, before its sender can have heard of it, must not overtake it. */
  const refusing = new Set<QueueName>();
  const overloaded = (queue: QueueName): RefusalError => {
    refusing.add(queue);
    setImmediate(() => refusing.delete(queue));
    return new RefusalError(refusal('OVERLOADED'));
  };

  const push = (queue: QueueName, body: Uint8Array): void => {
    if (refusing.has(queue) || waitingBytes + body.length > MAX_WAITING_BYTES) throw overloaded(queue);
    const only = ownLists.get(queue);
    if (only !== undefined || queue === repliesQueue('here'))
      queueMicrotask(() => requests.reply(body, only));
    else {
      lastOrder += 1;
      put(queue, { body, deliveries: 0, order: lastOrder });
    }
    if (isNoticeQueue(queue)) trim(queue);
  };

  /** All readers are in this process: where there is none, nobody will ever miss what is not kept. */
  const trim = (queue: QueueName): void => {
    const isRead = [...consumers].some((consumer) => consumer.takesFrom(queue));
    const most = isRead ? MAX_UNREAD_NOTICES : 0;
    while ((queues.get(queue)?.length ?? 0) > most) take(queue);
  };

  const own = ({ replyQueue, correlationId }: Sending): void => {
    const [oldest] = ownLists.size >= MAX_OWN_LISTS ? ownLists.keys() : [];
    if (oldest !== undefined) ownLists.delete(oldest);
    ownLists.set(replyQueue, correlationId);
  };

  const take = (queue: QueueName): Item | undefined => {
    const items = queues.get(queue);
    const item = items?.pop();
    if (items?.length === 0) queues.delete(queue);
    waitingBytes -= item?.body.length ?? 0;
    return item;
  };

  const bury = (letter: DeadLetter): void => {
    const letters = [letter, ...(dead.get(letter.queue) ?? [])].slice(0, MAX_DEAD_LETTERS);
    dead.set(letter.queue, letters);
    meter.counted('action.dead', 1);
    log.warn({ queue: letter.queue, id: letter.id, code: letter.error.code }, 'an action is dead');
  };

  const startConsumer = (
    first: readonly Subscription[],
    listener: Listener,
    options: ConsumeOptions,
  ): Consumer => {
    const { credits, patterns = [] } = options;
    const tellDead = tellingDead(options, log);
    const subscriptions = new Map(first.map((subscription) => [subscription.queue, subscription]));
    const running = new Set<Promise<void>>();
    let turns = noTurns;
    let stopped = false;
    const subscriptionOf = (queue: QueueName): Subscription | null =>
      subscriptions.get(queue) ?? patternSubscription(patterns, queue);
    const lengthOf = (queue: QueueName): number => (pauses.has(queue) ? 0 : (queues.get(queue)?.length ?? 0));
    const listed = (): readonly WaitingQueue[] =>
      [...subscriptions.values()].map((subscription) => ({
        subscription: subscription,
        length: lengthOf(subscription.queue),
      }));
    const found = (): readonly WaitingQueue[] =>
      [...queues.keys()].flatMap((queue) => {
        const subscription = subscriptions.has(queue) ? null : subscriptionOf(queue);
        return subscription ? [{ subscription, length: lengthOf(queue) }] : [];
      });
    const work = async (queue: QueueName, item: Item): Promise<void> => {
      const verdict = await deliver(queue, item.body, listener, log, options.read);
      if (verdict.type === 'done') return;
      const deliveries = item.deliveries + 1;
      if (verdict.type === 'given-back') {
        pauses.pause(queue, verdict.error);
        meter.counted('action.returned', 1);
        put(queue, item);
      } else if (verdict.type === 'malformed' || afterFailure(deliveries) === 'dead') {
        bury(deadLetter(queue, item.body, verdict.error));
        tellDead(queue, item.body, verdict.error);
      } else {
        meter.counted('action.redelivered', 1);
        put(queue, { ...item, deliveries });
      }
    };
    const look = (): void => {
      while (!stopped && running.size < credits) {
        const waiting = patterns.length === 0 ? listed() : [...listed(), ...found()];
        turns = enrolled(turns, waiting);
        const subscription = nextSubscription(turns);
        const item = subscription && take(subscription.queue);
        if (!subscription || !item) return;
        turns = served(turns, subscription);
        const done = work(subscription.queue, item).finally(() => {
          running.delete(done);
          look();
        });
        running.add(done);
      }
    };
    const pauses = createPauses(look);
    return {
      subscriptions,
      takesFrom: (queue) => subscriptionOf(queue) !== null,
      look,
      async stop() {
        stopped = true;
        await Promise.all(running);
        pauses.close();
      },
    };
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
        if (options.replyQueue) own(sending);
        push(queue, sized(encodeAction(sending.action, options.format)));
      });
    },
    async consume(subscriptions, listener, options): Promise<Consumption> {
      if (isClosed) throw closed();
      const consumer = startConsumer(subscriptions, listener, options);
      consumers.add(consumer);
      queueMicrotask(consumer.look);
      return {
        add(subscription) {
          if (!consumer.subscriptions.has(subscription.queue))
            consumer.subscriptions.set(subscription.queue, subscription);
          queueMicrotask(consumer.look);
        },
        async remove(queue) {
          consumer.subscriptions.delete(queue);
        },
        async stop() {
          consumers.delete(consumer);
          await consumer.stop();
        },
      };
    },
    replied: (reply) => requests.replied(reply),
    dead: deadLetters(dead, push),
    async ping() {
      if (isClosed) throw closed();
    },
    async close() {
      isClosed = true;
      await Promise.all([...consumers].map((consumer) => consumer.stop()));
      consumers.clear();
      requests.close();
    },
  };
}

function deadLetters(
  dead: Map<QueueName, DeadLetter[]>,
  push: (queue: QueueName, body: Uint8Array) => void,
): DeadLetters {
  const removed = (queue: QueueName, matches: (letter: DeadLetter) => boolean): readonly DeadLetter[] => {
    const letters = dead.get(queue) ?? [];
    const kept = letters.filter((letter) => !matches(letter));
    if (kept.length === 0) dead.delete(queue);
    else dead.set(queue, kept);
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
