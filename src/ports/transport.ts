/** What a node asks of whatever carries DomainActions between nodes and services. */
import type { TenantNotice } from '../domain/agent-record.ts';
import type { AgentTaskMessage } from '../domain/agent-task.ts';
import type { DomainAction, ParsedAction } from '../domain/domain-action.ts';
import type { ErrorCode, ErrorData } from '../domain/errors.ts';
import type { QueueName, QueuePattern, Subscription } from '../domain/queues.ts';

/** How a body is written. A reply has the format of its request. */
export type ActionFormat = 'json' | 'msgpack';

/** What stands on a queue: an action, or one of agent management's two kinds of message, which have no envelope. */
export type Sendable = DomainAction | AgentTaskMessage | TenantNotice;

/** Makes an action of what was decoded from a body; what it refuses goes to the dead list at once. */
export type ReadMessage = (
  raw: unknown,
  queue: QueueName,
  nowMs: number,
  newId: () => string,
) => ParsedAction;

/** One action, taken off a queue and not yet acknowledged. */
export interface ActionDelivery {
  readonly action: DomainAction;
  /** False where the sender gave no `action_id`: it cannot be deduplicated. */
  readonly idGiven: boolean;
  readonly format: ActionFormat;
  readonly queue: QueueName;
  /** Bytes of its body. */
  readonly bytes?: number;
  /** For which it was set aside before. Whoever is delivered it leaves it. */
  readonly place?: Place;
}

/** What an action that was set aside waits for. */
export interface Place {
  readonly granted: Promise<void>;
  /** It is wanted no more, granted or not. Safe to call twice. */
  leave(): void;
}

/**
 * Thrown by a listener: not yet. The action keeps its place in its order with the medium, holds no credit and no body
 * in this process, and is delivered again, uncounted, when the place is granted. When the consumer stops it is requeued.
 */
export class SetAside extends Error {
  readonly place: Place;
  constructor(place: Place) {
    super('the action waits for a place');
    this.place = place;
  }
}

/**
 * Resolved: acknowledged. Rejected: delivered again, at most MAX_DELIVERIES times, then put on the dead list. Rejected
 * with a RefusalError of NOT_ITS_FAULT: requeued: uncounted, for whoever takes it next. Rejected with SetAside: later.
 */
export type Listener = (delivery: ActionDelivery) => Promise<void>;

export interface ConsumeOptions {
  /** Deliveries that may run at once; what is beyond stays on its queue, for other nodes to take. */
  readonly credits: number;
  /** For queues whose messages are not actions. Without it: parseDomainAction. */
  readonly read?: ReadMessage | undefined;
  /**
   * Besides the subscriptions, every queue of these that holds something, for as long as it does. In process it is found at
   * once, on Redis within seconds; from then on until it has been empty for some, as quickly as a subscription.
   */
  readonly patterns?: readonly QueuePattern[] | undefined;
  /**
   * Told of what went to the dead list by this consumer's doing, or by the death of those that had it (POISON), as
   * far as it was read: its sender may want to know. At least once where it is told at all.
   */
  readonly onDead?: ((delivery: ActionDelivery, error: ErrorData) => void) | undefined;
  /** The same of what was refused when it was read: its action is as much of the envelope as is valid, without data. */
  readonly onRefused?: ((delivery: ActionDelivery, error: ErrorData) => void) | undefined;
  /** Told of every body that was refused when it was read, whoever sent it, at least once: for the log. */
  readonly onUnread?: ((queue: QueueName, error: ErrorData) => void) | undefined;
}

/** Refusals that say nothing about the action: the node goes away, or what it needs is out. */
export const NOT_ITS_FAULT: ReadonlySet<ErrorCode> = new Set([
  'DRAINING',
  'STORE_UNAVAILABLE',
  'TRANSPORT_UNAVAILABLE',
]);

/** A running consumer. Queues come and go while it runs. */
export interface Consumption {
  /** A queue that is there already is left as it is. */
  add(subscription: Subscription): void;
  /** Resolves when nothing more will be taken from it; what was taken still reaches the listener. */
  remove(queue: QueueName): Promise<void>;
  /** Takes no more; resolves when what was taken is settled. Safe to call twice. */
  stop(): Promise<void>;
}

export interface RequestOptions {
  /** From the call to the reply. */
  readonly timeoutMs: number;
  readonly format: ActionFormat;
  /**
   * Names a list for this one reply (`responseQueue`), for services that expect it. Without it the reply comes to
   * the list that all requests of this node share, and is told apart by its `correlation_id`.
   */
  readonly replyQueue?: (correlationId: string) => QueueName;
}

/** An action that could not be worked on. */
export interface DeadLetter {
  readonly id: string;
  readonly queue: QueueName;
  readonly error: ErrorData;
  readonly diedAtMs: number;
  /** Bytes of the body. */
  readonly size: number;
  readonly encoding: 'utf8' | 'base64';
  /** As it came, or its beginning where it was larger than an action may be: then it cannot be replayed. */
  readonly body: string;
  readonly replayable: boolean;
}

/** The dead lists. A list keeps its newest MAX_DEAD_LETTERS. */
export interface DeadLetters {
  /** Queues that have some. */
  queues(): Promise<readonly QueueName[]>;
  /** Newest first. */
  list(queue: QueueName, limit: number): Promise<readonly DeadLetter[]>;
  /** Sends one, or all, anew, oldest first; returns how many. Its deliveries count from the beginning. */
  replay(queue: QueueName, id?: string): Promise<number>;
  /** Deletes one, or all; returns how many. */
  drop(queue: QueueName, id?: string): Promise<number>;
}

/** What a transport counts. Replies: nobody waits any more, nobody ever asked, or it was answered before. */
export type TransportEvent =
  | 'reply.late'
  | 'reply.foreign'
  | 'reply.duplicate'
  | 'reply.malformed'
  | 'action.redelivered'
  | 'action.dead'
  | 'action.returned'
  | 'circuit.opened'
  | 'link.lost';

export interface TransportMeter {
  counted(event: TransportEvent, count: number): void;
}

/**
 * Carries DomainActions between nodes and services.
 * Delivery: at least once; an action is the consumer's until its listener's promise settles, and goes back to the
 * front of its queue when the consumer dies. The receiver deduplicates by tenant_id + action_id.
 * Order: what one sender puts on one queue is started in that order, except for what is delivered again. Where a send
 * is rejected for what the medium says (not for its own size), what was handed over behind it for the same queue is
 * rejected too: it must not overtake what will be sent again.
 * While the medium is away, calls reject at once with TRANSPORT_UNAVAILABLE and consumers wait; they come back alone.
 * close(): stops every consumer, waits for what was taken, refuses requests that still wait, disconnects. Safe to
 * call twice. All rejections are RefusalErrors.
 */
export interface Transport {
  /**
   * Resolves once the medium holds the bytes, not once someone has read them. Rejects with INVALID_REQUEST where it
   * never will: the queue is something else, or not this node's to write to. A queue of notices keeps the newest
   * MAX_UNREAD_NOTICES; in process, where every reader is known, none where nobody reads.
   */
  send(queue: QueueName, message: Sendable, format: ActionFormat): Promise<void>;
  /**
   * Sends with a `correlation_id` (a new one unless the action has one) and `callback_queue`, and waits for the reply
   * of the same tenant. Rejects with PEER_TIMEOUT after timeoutMs, and at once while the circuit of what is asked is open
   * (then with `retry_after_ms`).
   */
  request(queue: QueueName, action: DomainAction, options: RequestOptions): Promise<DomainAction>;
  /** Hears parsed actions only: a malformed body goes to the dead list with its reason. Resolves when it is taking. */
  consume(
    subscriptions: readonly Subscription[],
    listener: Listener,
    options: ConsumeOptions,
  ): Promise<Consumption>;
  /**
   * Hands a reply that came another way (on a queue of callbacks) to the request that waits for it by its
   * `correlation_id`; false where none of this node's does: then it is recorded as late, foreign or duplicate.
   */
  replied(reply: DomainAction): boolean;
  readonly dead: DeadLetters;
  /** Resolves if the medium would take an action now. */
  ping(): Promise<void>;
  /** The same, and that every queue of its consumers can be taken from. `details.reason` says why not, to anybody. */
  ready(): Promise<void>;
  close(): Promise<void>;
}
