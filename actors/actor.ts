/**
 * The only file that knows nact: typed addresses, bounded mailboxes, supervision with restart intensity,
 * dead letters, idleness and numbers, on top of nact's actors and their supervision.
 *
 * nact handles one message per actor and loop turn and copies the children map each time. So each actor keeps
 * its own mailbox and asks nact for one turn to drain it (docs/decisions/0001), and an actor with many children
 * has them under a quiet nursery that never gets a message (docs/decisions/0002).
 */
import { type ActorSystemRef, dispatch, type Ref, spawn as spawnNact, start, stop as stopNact } from 'nact';
import type { ActorKindStats, Clock, Log } from '../src/ports.ts';
import { AskError, type AskFailure, createAsks } from './asks.ts';

/** Decides; never does. Effects are carried out in order after the new state is in place. */
export type Behaviour<S, M, E> = (state: S, message: M) => readonly [S, readonly E[]];

declare const accepts: unique symbol;

/** Where an actor can be reached. Typed by what it accepts; an address of other messages is not assignable. */
export interface Address<M> {
  readonly name: string;
  readonly [accepts]?: (message: M) => M;
}

/** Any actor, where only its place in the tree matters. */
export type AnyAddress = Pick<Address<never>, 'name'>;

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
  /** What a restarted actor goes on with; `state` is the one before the message that crashed it. Default: that state. */
  readonly recover?: Behaviour<S, M, E>;
  /** Told once the actor is gone, after its children. */
  readonly onStopped?: (state: S, reason: StopReason) => void;
  /** Told of each message that will never be handled, so that whoever waits gets an answer. */
  readonly onDeadLetter?: (message: M, state: S) => void;
  /** After `afterMs` without a message the actor is told `message`; it decides what to do. */
  readonly idle?: { readonly afterMs: number; readonly message: M };
}

/** What one actor has of its own. */
export interface ActorSeed<S, M, E> {
  readonly name: string;
  readonly initial: S;
  readonly interpret: (effect: E, self: Address<M>) => void;
}

export type Told = 'delivered' | 'full' | 'dead';

/**
 * Delivery: at most once, in order per receiver; what can not be delivered is counted as a dead letter and answered.
 * Supervision: a crash keeps the last good state, up to the kind's restart intensity; then the actor and its
 * children stop. close(): stops everything; mail that waits is answered as dead.
 */
export interface ActorSystem {
  spawn<S, M, E>(parent: AnyAddress | null, kind: ActorKind<S, M, E>, seed: ActorSeed<S, M, E>): Address<M>;
  /** For actors and effects. */
  tell<M>(to: Address<M>, message: M): Told;
  /** For edges: refuses (`full`) beyond the mailbox limit, and leaves answering to the caller. */
  offer<M>(to: Address<M>, message: M): Told;
  /** Offers a message that carries a number for `reply`. Rejects with AskError. */
  ask<M, R>(to: Address<M>, timeoutMs: number, make: (replyTo: number) => M): Promise<R>;
  /** A number for `reply` that belongs to no message yet. */
  expect<R>(timeoutMs: number): { readonly replyTo: number; readonly promise: Promise<R> };
  /** Settles an ask. Late and double replies are ignored. */
  reply(replyTo: number, value: unknown): void;
  fail(replyTo: number, reason: AskFailure): void;
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

/** Messages one drain handles before other actors get their turn. */
const MAX_BATCH = 64;
/** How much more than edges, as a factor, actors may put into a mailbox. */
const INSIDE_FACTOR = 4;
const DRAIN = { drain: true } as const;

// biome-ignore lint/suspicious/noExplicitAny: nact's references and our cells are typed by Address at the border
type Any = any;
type NactRef = Ref<Any>;

interface KindNumbers {
  kind: string;
  alive: number;
  depth: number;
  deepest: number;
  handled: number;
  busyMs: number;
}

/** One actor. An Address is its cell, seen from outside. */
interface Cell {
  readonly name: string;
  readonly kind: ActorKind<Any, Any, Any>;
  readonly numbers: KindNumbers;
  readonly interpret: (effect: Any, self: Address<Any>) => void;
  readonly parent: Cell | null;
  ref: NactRef;
  nursery: NactRef | null;
  children: Set<Cell> | null;
  state: Any;
  mail: unknown[];
  head: number;
  scheduled: boolean;
  /** The message at the head is being handled now. */
  handling: boolean;
  stopped: boolean;
  crashes: readonly number[];
  activeAtMs: number;
}

export function createActorSystem(options: ActorSystemOptions): ActorSystem {
  const { clock, log } = options;
  const root: ActorSystemRef = start();
  const kinds = new Map<string, KindNumbers>();
  const roots = new Set<Cell>();
  const idlers = new Set<Cell>();
  const asks = createAsks(clock);
  let names = 0;
  let idleTimer: NodeJS.Timeout | undefined;

  const numbersOf = (kind: string): KindNumbers => {
    let numbers = kinds.get(kind);
    if (!numbers) {
      numbers = { kind, alive: 0, depth: 0, deepest: 0, handled: 0, busyMs: 0 };
      kinds.set(kind, numbers);
    }
    return numbers;
  };

  function bury(cell: Cell, message: unknown): void {
    options.onDeadLetter?.(cell.kind.kind);
    cell.kind.onDeadLetter?.(message, cell.state);
  }

  function deliver(cell: Cell, message: unknown, limit: number): Told {
    if (cell.stopped) return 'dead';
    const waiting = cell.mail.length - cell.head;
    if (waiting >= limit) return 'full';
    cell.mail.push(message);
    const { numbers } = cell;
    numbers.depth += 1;
    if (waiting >= numbers.deepest) numbers.deepest = waiting + 1;
    if (!cell.scheduled) {
      cell.scheduled = true;
      dispatch(cell.ref, DRAIN);
    }
    return 'delivered';
  }

  function drain(cell: Cell): void {
    if (cell.stopped) return;
    const startedMs = performance.now();
    const { behaviour } = cell.kind;
    let handled = 0;
    try {
      while (cell.head < cell.mail.length && handled < MAX_BATCH && !cell.stopped) {
        const message = cell.mail[cell.head];
        handled += 1;
        cell.handling = true;
        apply(cell, behaviour, message);
        cell.handling = false;
        if (!cell.stopped) shift(cell);
      }
    } finally {
      cell.numbers.handled += handled;
      cell.numbers.busyMs += performance.now() - startedMs;
    }
    cell.activeAtMs = clock.now();
    reschedule(cell);
  }

  function apply(cell: Cell, behaviour: Behaviour<Any, Any, Any>, message: unknown): void {
    const before = cell.state;
    const [after, effects] = behaviour(before, message);
    cell.state = after;
    try {
      for (const effect of effects) cell.interpret(effect, cell as Address<Any>);
    } catch (error) {
      cell.state = before;
      throw error;
    }
  }

  /** The message in hand stays at the head of the mailbox until it has been handled, so that a crash knows it. */
  function shift(cell: Cell): void {
    cell.mail[cell.head] = undefined;
    cell.head += 1;
    cell.numbers.depth -= 1;
    if (cell.head === cell.mail.length) {
      cell.mail.length = 0;
      cell.head = 0;
    } else if (cell.head >= 1024) {
      cell.mail = cell.mail.slice(cell.head);
      cell.head = 0;
    }
  }

  function reschedule(cell: Cell): void {
    cell.scheduled = cell.mail.length > cell.head && !cell.stopped;
    if (cell.scheduled) dispatch(cell.ref, DRAIN);
  }

  /** nact's supervision asks here what to do after a crash. True: go on. */
  function survives(cell: Cell, error: Error | undefined): boolean {
    if (cell.stopped) return false;
    cell.handling = false;
    const { kind } = cell;
    const now = clock.now();
    const recent = cell.crashes.filter((atMs) => now - atMs < kind.restarts.withinMs);
    cell.crashes = [...recent, now];
    options.onCrash?.(kind.kind);
    const goesOn = recent.length < kind.restarts.max;
    log.error({ err: error, actor: kind.kind, restarted: goesOn }, 'actor crashed');
    const message = cell.mail[cell.head];
    if (!goesOn) {
      finish(cell, 'crashed');
      return false;
    }
    shift(cell);
    try {
      if (kind.recover) apply(cell, kind.recover, message);
      else bury(cell, message);
    } catch (second) {
      log.error({ err: second, actor: kind.kind }, 'actor crashed while it recovered');
      finish(cell, 'crashed');
      return false;
    }
    reschedule(cell);
    return true;
  }

  /** Takes a cell and all below it out of use; nact's own actors are stopped by the caller. */
  function finish(cell: Cell, reason: StopReason): void {
    if (cell.stopped) return;
    cell.stopped = true;
    for (const child of [...(cell.children ?? [])]) finish(child, reason);
    (cell.parent ? cell.parent.children : roots)?.delete(cell);
    idlers.delete(cell);
    cell.numbers.alive -= 1;
    const left = cell.mail.slice(cell.handling ? cell.head + 1 : cell.head);
    cell.numbers.depth -= cell.mail.length - cell.head;
    cell.mail = [];
    cell.head = 0;
    for (const message of left) bury(cell, message);
    cell.kind.onStopped?.(cell.state, reason);
  }

  function watchIdleness(cell: Cell, afterMs: number): void {
    idlers.add(cell);
    if (idleTimer) return;
    // One timer for all: 100,000 actors are looked through in about 2 ms.
    const everyMs = Math.min(30_000, Math.max(50, afterMs / 4));
    idleTimer = setInterval(() => {
      const now = clock.now();
      for (const idler of idlers) {
        const { idle } = idler.kind;
        if (idle && now - idler.activeAtMs >= idle.afterMs)
          deliver(idler, idle.message, idler.kind.mailboxLimit);
      }
    }, everyMs);
    idleTimer.unref();
  }

  const system: ActorSystem = {
    spawn(parent, kind, seed) {
      const over = parent as Cell | null;
      if (over?.stopped) throw new AskError('dead');
      const cell: Cell = {
        name: seed.name,
        kind,
        numbers: numbersOf(kind.kind),
        interpret: seed.interpret,
        parent: over,
        ref: root as NactRef,
        nursery: null,
        children: null,
        state: seed.initial,
        mail: [],
        head: 0,
        scheduled: false,
        handling: false,
        stopped: false,
        crashes: [],
        activeAtMs: clock.now(),
      };
      names += 1;
      cell.ref = spawnNact(over ? (over.nursery ?? over.ref) : root, () => drain(cell), names.toString(36), {
        onCrash: (_message, error, context) => (survives(cell, error) ? context.resume : context.stop),
      }) as NactRef;
      if (kind.manyChildren) cell.nursery = spawnNact(cell.ref, () => undefined, 'children') as NactRef;
      if (over) {
        over.children ??= new Set();
        over.children.add(cell);
      } else roots.add(cell);
      cell.numbers.alive += 1;
      if (kind.idle) watchIdleness(cell, kind.idle.afterMs);
      return cell as Address<Any>;
    },
    tell(to, message) {
      const cell = to as Cell;
      const told = deliver(cell, message, cell.kind.mailboxLimit * INSIDE_FACTOR);
      if (told !== 'delivered') bury(cell, message);
      return told;
    },
    offer(to, message) {
      const cell = to as Cell;
      const told = deliver(cell, message, cell.kind.mailboxLimit);
      if (told === 'dead') options.onDeadLetter?.(cell.kind.kind);
      return told;
    },
    ask(to, timeoutMs, make) {
      const { replyTo, promise } = asks.expect(timeoutMs);
      const told = system.offer(to, make(replyTo));
      if (told !== 'delivered') asks.fail(replyTo, told);
      return promise as Promise<Any>;
    },
    expect: (timeoutMs) => asks.expect(timeoutMs) as Any,
    reply: (replyTo, value) => asks.answer(replyTo, value),
    fail: (replyTo, reason) => asks.fail(replyTo, reason),
    stop(address) {
      const cell = address as Cell;
      if (cell.stopped) return;
      finish(cell, 'stopped');
      stopNact(cell.ref);
    },
    passivate(address) {
      const cell = address as Cell;
      const waiting = cell.mail.length - cell.head - (cell.handling ? 1 : 0);
      if (cell.stopped || waiting > 0) return false;
      system.stop(address);
      return true;
    },
    isAlive: (address) => !(address as Cell).stopped,
    stats: () => [...kinds.values()].map((numbers) => ({ ...numbers })),
    async close() {
      for (const cell of [...roots]) system.stop(cell);
      stopNact(root as NactRef);
      clearInterval(idleTimer);
      asks.close();
    },
  };
  return system;
}
