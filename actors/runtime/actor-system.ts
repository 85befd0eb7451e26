/**
 * The only file that knows nact: typed addresses, bounded mailboxes, supervision with restart intensity,
 * dead letters, idleness and numbers, on top of nact's actors and their supervision.
 *
 * nact handles one message per actor and loop turn and copies the children map each time. So each actor keeps its own
 * mailbox (docs/decisions/0001), which is drained in the turn of the loop in which a message comes, as long as that is
 * not long yet, and else when nact's turn comes (0017). An actor with many children has them under a quiet supervisor
 * that never gets a message (0002).
 */
import { type ActorSystemRef, dispatch, type Ref, spawn as spawnNact, start, stop as stopNact } from 'nact';
import { LoopShare } from '../../src/domain/loop-share.ts';
import type { ActorKindStats } from '../../src/ports/telemetry.ts';
import type {
  ActorKind,
  ActorSystem,
  ActorSystemOptions,
  Address,
  Behaviour,
  StopReason,
  TellOutcome,
} from './actor.ts';
import { AskError, createAsks } from './asks.ts';
import { createIdleTimer } from './idle-timer.ts';

interface Mailbox {
  items: unknown[];
  /** Where the oldest stands; what is before it has been taken. */
  head: number;
}

const emptyMailbox = (): Mailbox => ({ items: [], head: 0 });

const waitingIn = (mail: Mailbox): number => mail.items.length - mail.head;

const firstIn = (mail: Mailbox): unknown => mail.items[mail.head];

/** Taken places are given back once there are this many of them. */
const COMPACT_AT = 1024;

/** Drops the oldest message. */
function shiftMail(mail: Mailbox): void {
  mail.items[mail.head] = undefined;
  mail.head += 1;
  if (mail.head === mail.items.length) {
    mail.items.length = 0;
    mail.head = 0;
  } else if (mail.head >= COMPACT_AT) {
    mail.items = mail.items.slice(mail.head);
    mail.head = 0;
  }
}

/** Empties the mailbox and returns what was in it. */
function takeAll(mail: Mailbox): readonly unknown[] {
  const left = mail.items.slice(mail.head);
  mail.items = [];
  mail.head = 0;
  return left;
}

/** Messages one drain handles before other actors get their turn. */
const MAX_BATCH = 64;
/** How much more than edges, as a factor, actors may put into a mailbox. */
const INSIDE_FACTOR = 4;
const DRAIN = { drain: true } as const;
/** Drains in one turn of the loop that wait for no turn of nact's. One takes some 10 µs. */
const DRAINS_PER_TURN = 64;

// biome-ignore lint/suspicious/noExplicitAny: nact's references and our cells are typed by Address at the border
type Any = any;
type NactRef = Ref<Any>;

type KindNumbers = { -readonly [K in keyof ActorKindStats]: ActorKindStats[K] };

/** One actor. An Address is its cell, seen from outside. */
interface Cell {
  readonly name: string;
  readonly kind: ActorKind<Any, Any, Any>;
  readonly numbers: KindNumbers;
  readonly interpret: (effect: Any, self: Address<Any>) => void;
  readonly parent: Cell | null;
  ref: NactRef;
  childrenSupervisor: NactRef | null;
  children: Set<Cell> | null;
  state: Any;
  readonly mail: Mailbox;
  scheduled: boolean;
  /** The message at the head is being handled now. */
  handling: boolean;
  /** Its behaviour has decided about the message at the head. */
  handled: boolean;
  stopped: boolean;
  crashes: readonly number[];
  /** What its drain threw, for nact's supervision to see. */
  failure: { readonly error: unknown } | null;
  activeAtMs: number;
}

export function createActorSystem(options: ActorSystemOptions): ActorSystem {
  const { clock, log } = options;
  const root: ActorSystemRef = start();
  const kinds = new Map<string, KindNumbers>();
  const roots = new Set<Cell>();
  const share = new LoopShare(DRAINS_PER_TURN);
  /** To be drained in this turn of the loop. */
  const ready: Cell[] = [];
  const asks = createAsks(clock);
  const idleness = createIdleTimer<Cell>(
    () => clock.now(),
    (cell) => {
      const { idle, mailboxLimit } = cell.kind;
      if (idle && waitingIn(cell.mail) === 0) deliver(cell, idle.message, mailboxLimit);
    },
  );
  let names = 0;

  const numbersOf = (kind: string): KindNumbers => {
    const numbers = kinds.get(kind) ?? { kind, alive: 0, depth: 0, deepest: 0, handled: 0, busyMs: 0 };
    kinds.set(kind, numbers);
    return numbers;
  };

  function deadLetter(cell: Cell, message: unknown): void {
    options.onDeadLetter?.(cell.kind.kind);
    guarded(cell, () => cell.kind.onDeadLetter?.(message, cell.state));
  }

  /** What is told of an actor's end must not keep the rest of it from ending. */
  function guarded(cell: Cell, deed: () => void): void {
    try {
      deed();
    } catch (error) {
      log.error({ err: error, actor: cell.kind.kind }, 'an actor could not be wound up');
    }
  }

  function deliver(cell: Cell, message: unknown, limit: number): TellOutcome {
    if (cell.stopped) return 'dead';
    const waiting = waitingIn(cell.mail);
    if (waiting >= limit) return 'full';
    cell.mail.items.push(message);
    const { numbers } = cell;
    numbers.depth += 1;
    if (waiting >= numbers.deepest) numbers.deepest = waiting + 1;
    if (!cell.scheduled) schedule(cell);
    return 'delivered';
  }

  /** In this turn of the loop, or in a later one by nact. */
  function schedule(cell: Cell): void {
    cell.scheduled = true;
    if (!share.take()) {
      dispatch(cell.ref, DRAIN);
      return;
    }
    ready.push(cell);
    if (ready.length === 1) queueMicrotask(drainReady);
  }

  /** Those too that are told something meanwhile. */
  function drainReady(): void {
    for (const cell of ready)
      try {
        drain(cell);
      } catch (error) {
        cell.failure = { error };
        dispatch(cell.ref, DRAIN);
      }
    ready.length = 0;
  }

  /** By nact, whose supervision hears of what is thrown here. */
  function drainInTurn(cell: Cell): void {
    const { failure } = cell;
    cell.failure = null;
    if (failure) throw failure.error;
    drain(cell);
  }

  function drain(cell: Cell): void {
    if (cell.stopped) return;
    const startedMs = performance.now();
    const { behaviour } = cell.kind;
    let handled = 0;
    try {
      while (waitingIn(cell.mail) > 0 && handled < MAX_BATCH && !cell.stopped) {
        const message = firstIn(cell.mail);
        handled += 1;
        cell.handling = true;
        cell.handled = false;
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
    const [after, effects] = behaviour(cell.state, message);
    cell.state = after;
    cell.handled = true;
    let failed: { readonly error: unknown } | null = null;
    for (const effect of effects)
      try {
        cell.interpret(effect, cell as Address<Any>);
      } catch (error) {
        failed ??= { error };
      }
    if (failed) throw failed.error;
  }

  /** The message in hand stays at the head of the mailbox until it has been handled, so that a crash knows it. */
  function shift(cell: Cell): void {
    shiftMail(cell.mail);
    cell.numbers.depth -= 1;
  }

  function reschedule(cell: Cell): void {
    cell.scheduled = waitingIn(cell.mail) > 0 && !cell.stopped;
    if (cell.scheduled) dispatch(cell.ref, DRAIN);
  }

  /** nact's supervision asks here what to do after a crash. True: go on. */
  function survives(cell: Cell, error: Error | undefined): boolean {
    const { kind, handled } = cell;
    const now = clock.now();
    const recent = cell.crashes.filter((atMs) => now - atMs < kind.restarts.withinMs);
    cell.crashes = [...recent, now];
    const restarted = !cell.stopped && recent.length < kind.restarts.max;
    options.onCrash?.(kind.kind);
    log.error({ err: error, actor: kind.kind, restarted }, 'actor crashed');
    if (cell.stopped) return false;
    cell.handling = false;
    const message = firstIn(cell.mail);
    if (handled) shift(cell);
    if (!restarted || !(handled || recovers(cell, message))) {
      finish(cell, 'crashed');
      return false;
    }
    reschedule(cell);
    return true;
  }

  /** Sets a message right that the behaviour threw over. False: that crashed too. */
  function recovers(cell: Cell, message: unknown): boolean {
    shift(cell);
    const { recover } = cell.kind;
    if (!recover) {
      deadLetter(cell, message);
      return true;
    }
    try {
      apply(cell, recover, message);
      return true;
    } catch (error) {
      log.error({ err: error, actor: cell.kind.kind }, 'actor crashed while it recovered');
      if (!cell.handled) deadLetter(cell, message);
      return false;
    }
  }

  /** Takes a cell and all below it out of use; nact's own actors are stopped by the caller. */
  function finish(cell: Cell, reason: StopReason): void {
    if (cell.stopped) return;
    cell.stopped = true;
    for (const child of [...(cell.children ?? [])]) finish(child, reason);
    (cell.parent ? cell.parent.children : roots)?.delete(cell);
    if (cell.kind.idle) idleness.leave(cell);
    cell.numbers.alive -= 1;
    const left = takeAll(cell.mail);
    cell.numbers.depth -= left.length;
    for (const message of cell.handling ? left.slice(1) : left) deadLetter(cell, message);
    guarded(cell, () => cell.kind.onStopped?.(cell.state, reason));
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
        childrenSupervisor: null,
        children: null,
        state: seed.initial,
        mail: emptyMailbox(),
        scheduled: false,
        handling: false,
        handled: false,
        stopped: false,
        crashes: [],
        failure: null,
        activeAtMs: clock.now(),
      };
      names += 1;
      cell.ref = spawnNact(
        over ? (over.childrenSupervisor ?? over.ref) : root,
        () => drainInTurn(cell),
        names.toString(36),
        {
          onCrash: (_message, error, context) => (survives(cell, error) ? context.resume : context.stop),
        },
      ) as NactRef;
      if (kind.manyChildren)
        cell.childrenSupervisor = spawnNact(cell.ref, () => undefined, 'children') as NactRef;
      if (over) {
        over.children ??= new Set();
        over.children.add(cell);
      } else roots.add(cell);
      cell.numbers.alive += 1;
      if (kind.idle) idleness.watch(cell, kind.idle.afterMs);
      return cell as Address<Any>;
    },
    tell(to, message) {
      const cell = to as Cell;
      const told = deliver(cell, message, cell.kind.mailboxLimit * INSIDE_FACTOR);
      if (told !== 'delivered') deadLetter(cell, message);
      return told;
    },
    offer(to, message) {
      const cell = to as Cell;
      const told = deliver(cell, message, cell.kind.mailboxLimit);
      if (told === 'dead') options.onDeadLetter?.(cell.kind.kind);
      return told;
    },
    ask(to, timeoutMs, make, taken) {
      const { replyTo, promise } = asks.expect(timeoutMs);
      const told = system.offer(to, make(replyTo));
      if (told === 'delivered') taken?.();
      else asks.fail(replyTo, told);
      return promise as Promise<Any>;
    },
    reply: (replyTo, value) => asks.answer(replyTo, value),
    stop(address) {
      const cell = address as Cell;
      if (cell.stopped) return;
      finish(cell, 'stopped');
      stopNact(cell.ref);
    },
    passivate(address) {
      const cell = address as Cell;
      const waiting = waitingIn(cell.mail) - (cell.handling ? 1 : 0);
      if (cell.stopped || waiting > 0) return false;
      system.stop(address);
      return true;
    },
    isAlive: (address) => !(address as Cell).stopped,
    stats: () => [...kinds.values()].map((numbers) => ({ ...numbers })),
    async close() {
      for (const cell of [...roots]) system.stop(cell);
      stopNact(root as NactRef);
      idleness.close();
      asks.close();
    },
  };
  return system;
}
