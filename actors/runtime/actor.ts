/**
 * What an actor is to those who speak to it: typed addresses, kinds with their bounds, and the system's contract.
 *
 * A whole actor (a test runs this):
 * ```ts
 * type Message =
 *   | { readonly type: 'add'; readonly amount: number }
 *   | { readonly type: 'total'; readonly replyTo: ReplyTo<number> };
 * type Effect = { readonly type: 'reply'; readonly replyTo: ReplyTo<number>; readonly total: number };
 *
 * const sum: Behaviour<number, Message, Effect> = (state, message) => {
 *   if (message.type === 'add') return [state + message.amount, []];
 *   return [state, [{ type: 'reply', replyTo: message.replyTo, total: state }]];
 * };
 * const kind: ActorKind<number, Message, Effect> = {
 *   kind: 'sum',
 *   behaviour: sum,
 *   mailboxLimit: 100,
 *   restarts: RESTARTS,
 * };
 * const address = actors.spawn(null, kind, {
 *   name: 'example',
 *   initial: 0,
 *   interpret: ({ replyTo, total }) => actors.reply(replyTo, total),
 * });
 * actors.tell(address, { type: 'add', amount: 2 });
 * actors.tell(address, { type: 'add', amount: 3 });
 * const total = await actors.ask<Message, number>(address, 1_000, (replyTo) => ({ type: 'total', replyTo }));
 * ```
 */
import type { ActorKindStats, Clock, Log } from '../../src/ports/telemetry.ts';

/** Decides; never does. Effects are carried out in order after the new state is in place. */
export type Behaviour<S, M, E> = (state: S, message: M) => readonly [S, readonly E[]];

declare const accepts: unique symbol;

/** Where an actor can be reached. Typed by what it accepts; an address of other messages is not assignable. */
export interface Address<M> {
  readonly name: string;
  readonly [accepts]?: (message: M) => M;
}

/** Any actor, where only its place in the tree matters. */
type AnyAddress = Pick<Address<never>, 'name'>;

declare const answers: unique symbol;

/** Where an answer goes: the number of a question. Typed by the answer it waits for. */
export type ReplyTo<R> = number & { readonly [answers]?: (answer: R) => void };

export type StopReason = 'stopped' | 'crashed';

/** What all actors of one kind share. */
export interface ActorKind<S, M, E> {
  /** Label of metrics and logs. */
  readonly kind: string;
  readonly behaviour: Behaviour<S, M, E>;
  /** `offer` refuses beyond it. Messages between actors have four times the room: each answers something sent before. */
  readonly mailboxLimit: number;
  /** The crash after `max` of them within `withinMs` stops the actor. */
  readonly restarts: { readonly max: number; readonly withinMs: number };
  /** True puts children under a nursery, so that a thousand of them cost their parent's messages nothing. */
  readonly manyChildren?: boolean;
  /** What an actor does about a message that its behaviour threw over; the state is the one before it. Default: none. */
  readonly recover?: Behaviour<S, M, E>;
  /** Told once the actor is gone, after its children. */
  readonly onStopped?: (state: S, reason: StopReason) => void;
  /** Told of each message that will never be handled, so that whoever waits gets an answer. */
  readonly onDeadLetter?: (message: M, state: S) => void;
  /** After `afterMs` without a message the actor is told `message`; it decides what to do. */
  readonly idle?: { readonly afterMs: number; readonly message: M };
}

/** More crashes within a minute than this stop an actor, and what is below it. */
export const RESTARTS = { max: 3, withinMs: 60_000 } as const;

/** What one actor has of its own. */
interface ActorSeed<S, M, E> {
  readonly name: string;
  readonly initial: S;
  readonly interpret: (effect: E, self: Address<M>) => void;
}

export type TellOutcome = 'delivered' | 'full' | 'dead';

/**
 * Delivery: at most once, in order per receiver; what can not be delivered is counted as a dead letter and answered.
 * Supervision: an actor that crashes goes on, up to its kind's restart intensity; then it and its children stop.
 * A behaviour that throws has changed nothing, and `recover` sets its message right. An effect that throws is one
 * deed that failed: the state and the message's other effects stand, for half of them may be out in the world.
 * close(): stops everything; mail that waits is answered as dead.
 */
export interface ActorSystem {
  /** Throws AskError (`dead`) where the parent has stopped. */
  spawn<S, M, E>(parent: AnyAddress | null, kind: ActorKind<S, M, E>, seed: ActorSeed<S, M, E>): Address<M>;
  /** For actors and effects. */
  tell<M>(to: Address<M>, message: M): TellOutcome;
  /** For edges: refuses (`full`) beyond the mailbox limit, and leaves answering to the caller. */
  offer<M>(to: Address<M>, message: M): TellOutcome;
  /** Offers a message that carries a number for `reply`; `taken` is called at once where it was. Rejects with AskError. */
  ask<M, R>(
    to: Address<M>,
    timeoutMs: number,
    make: (replyTo: ReplyTo<R>) => M,
    taken?: () => void,
  ): Promise<R>;
  /** Settles an ask. Late and double replies are ignored. */
  reply<R>(replyTo: ReplyTo<R>, value: R): void;
  stop(address: AnyAddress): void;
  /** Stops the actor if no mail waits for it. */
  passivate(address: AnyAddress): boolean;
  isAlive(address: AnyAddress): boolean;
  stats(): readonly ActorKindStats[];
  close(): Promise<void>;
}

export interface ActorSystemOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** Told of every crash and dead letter, for counting. */
  readonly onCrash?: (kind: string) => void;
  readonly onDeadLetter?: (kind: string) => void;
}

/** For the end of a switch over a union: a new member that nobody handles is a type error. */
export function unreachable(value: never): never {
  throw new Error(`unexpected ${JSON.stringify(value)}`);
}
