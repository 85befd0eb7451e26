/**
 * A model of the sessions of one boot: a log with numbers, clients, turns with one effect each, and the writes that
 * prove whose they are. What it is asked for is the port that real sessions have.
 */
import { CLOSE } from '../../src/domain/errors.ts';
import type { Frame } from '../../src/domain/frames.ts';
import { isGuest, type LocalSessions, type SessionKey } from '../../src/ports/cluster.ts';
import type { Client, ResumePoint } from '../../src/ports/sessions.ts';
import type { SimulationOptions } from './options.ts';
import type { SimulatedStore, Statement, StoreOutcome } from './store.ts';
import type { World } from './world.ts';

/** What whoever says something is told. */
export type Said = 'accepted' | 'no';

interface Turn {
  readonly task: string;
  callers: ((said: Said) => void)[];
  isStored: boolean;
  isAborted: boolean;
  isOver: boolean;
}

export interface SimulatedSession {
  readonly name: string;
  readonly epoch: number;
  readonly log: Frame[];
  readonly clients: Map<string, Client>;
  readonly turns: Map<string, Turn>;
  readonly ended: Map<string, 'completed' | 'interrupted'>;
  untold: string[];
  isLive: boolean;
  stash: (() => void)[];
  isLeaving: boolean;
  /** Acceptances of which nobody knows yet whether they were stored. */
  readonly unsettled: Set<string>;
}

export interface SessionsDeps {
  readonly world: World;
  readonly options: SimulationOptions;
  readonly store: SimulatedStore;
  readonly boot: number;
  readonly after: (ms: number, act: () => void) => void;
  /** Reads, on any connection. */
  readonly read: <R>(apply: () => R, done: (outcome: StoreOutcome<R>) => void) => void;
  /** Writes, one at a time, as this boot. */
  readonly write: <F, R>(
    statement: Omit<Statement<F, R>, 'hold'>,
    done: (outcome: StoreOutcome<R>) => void,
  ) => void;
  /** Gives a session up, behind all that it wrote. */
  readonly release: (name: string, epoch: number, done: () => void) => void;
  /** Tasks and the epochs in which their effect happened. */
  readonly effects: Map<string, Set<number>>;
  readonly isDraining: () => boolean;
}

const RETRY_MS = 300;
const STORE_RETRY_MS = 500;

export function createSimulatedSessions(deps: SessionsDeps) {
  const { world, options, store, boot, after, read, write } = deps;
  const sessions = new Map<string, SimulatedSession>();
  const isMine = (session: SimulatedSession): boolean => sessions.get(session.name) === session;

  function activate(name: string, epoch: number): SimulatedSession {
    const session: SimulatedSession = {
      ...{ name, epoch, log: [], clients: new Map(), turns: new Map(), ended: new Map() },
      ...{ untold: [], isLive: false, stash: [], isLeaving: false, unsettled: new Set() },
    };
    sessions.set(name, session);
    load(session);
    return session;
  }

  function load(session: SimulatedSession): void {
    const { name, epoch } = session;
    const rows = () =>
      [...store.turns].flatMap(([task, row]) => (row.session === name ? [{ ...row, task }] : []));
    read(rows, (outcome) => {
      if (!isMine(session)) return;
      if (!outcome.ok) return after(RETRY_MS, () => isMine(session) && load(session));
      for (const { task, status, isUntold, ...row } of outcome.value) {
        if (status) session.ended.set(task, status);
        if (isUntold) session.untold.push(task);
        if (!status && store.owners.get(name)?.epoch === epoch)
          world.problem('a new owner found a turn that still runs', { name, task, epoch, of: row.epoch });
      }
      session.isLive = true;
      for (const act of session.stash.splice(0)) act();
    });
  }

  const when = (session: SimulatedSession, act: () => void): void => {
    if (session.isLive) act();
    else session.stash.push(act);
  };

  function attach(session: SimulatedSession, client: Client, resume: ResumePoint | undefined): void {
    when(session, () => {
      world.note('attach', client.id, 'to', session.name, session.epoch, resume);
      const { log, epoch, ended } = session;
      const isRecovered = resume?.epoch === String(epoch) && resume.lastSeq <= log.length;
      const ready = { epoch: String(epoch), seq: log.length, ...(resume ? { recovered: isRecovered } : {}) };
      client.send(frame('session.ready', ready));
      if (isRecovered) for (const each of log.slice(resume.lastSeq)) client.send(each);
      else if (resume) client.send(frame('session.snapshot', { ended: [...ended.keys()] }));
      session.clients.set(client.id, client);
      tell(session);
    });
  }

  /** Turns that ended with nobody there. */
  function tell(session: SimulatedSession): void {
    if (session.clients.size === 0) return;
    // What is being resumed has no end yet, nor has one of which nobody knows whether it was.
    const isOpen = (task: string): boolean => session.turns.has(task) || session.unsettled.has(task);
    const told = session.untold.filter((task) => !isOpen(task));
    session.untold = session.untold.filter(isOpen);
    for (const task of told) {
      emit(session, 'end', task);
      const mark = (): void =>
        write(
          {
            check: () => null,
            apply() {
              const row = store.turns.get(task);
              if (row) row.isUntold = false;
            },
          },
          ({ ok }) => void (!ok && isMine(session) && after(RETRY_MS, mark)),
        );
      mark();
    }
  }

  function emit(session: SimulatedSession, type: string, task: string): void {
    const told = frame(type, { task }, session.log.length + 1);
    session.log.push(told);
    for (const client of session.clients.values()) client.send(told);
  }

  function say(session: SimulatedSession, task: string, again: boolean, done: (said: Said) => void): void {
    if (deps.isDraining() || session.isLeaving) return done('no');
    when(session, () => {
      // One whose end was told here is over, though the store may not know it yet.
      if (session.ended.has(task) && !(again && session.untold.includes(task))) return done('accepted');
      if (session.unsettled.has(task)) return done('no');
      const known = session.turns.get(task);
      if (known?.isStored) return done('accepted');
      if (known) return void known.callers.push(done);
      const turn: Turn = { task, callers: [done], isStored: false, isAborted: false, isOver: false };
      session.turns.set(task, turn);
      accept(session, turn, again);
    });
  }

  function accept(session: SimulatedSession, turn: Turn, again: boolean): void {
    const { name, epoch } = session;
    const { task } = turn;
    const apply = (isOwned: boolean): 'fenced' | 'stored' | 'duplicate' => {
      if (!isOwned) return 'fenced';
      const row = store.turns.get(task);
      const resumes =
        row &&
        again &&
        row.session === name &&
        row.status === 'interrupted' &&
        !row.hasEffects &&
        row.isUntold;
      if (row && !resumes) return 'duplicate';
      store.wrote(name, epoch, row ? 'resumed' : 'accepted', task);
      const fresh = { status: null, boot, epoch, isUntold: false, ends: 0 };
      if (row) Object.assign(row, fresh);
      else store.turns.set(task, { session: name, hasEffects: false, ...fresh });
      return 'stored';
    };
    write({ check: () => store.owners.get(name)?.epoch === epoch, apply }, (outcome) => {
      if (!outcome.ok && options.settle) settle(session, task);
      if (!outcome.ok || outcome.value !== 'stored') {
        session.turns.delete(task);
        tell(session);
        const said = outcome.ok && outcome.value === 'duplicate' ? 'accepted' : 'no';
        for (const done of turn.callers) done(said);
        return;
      }
      turn.isStored = true;
      if (again) {
        session.ended.delete(task);
        session.untold = session.untold.filter((each) => each !== task);
      }
      emit(session, 'accepted', task);
      for (const done of turn.callers.splice(0)) done('accepted');
      begin(session, turn);
    });
  }

  function begin(session: SimulatedSession, turn: Turn): void {
    const deltas = Math.floor(world.between(1, 6));
    for (let n = 1; n <= deltas; n += 1)
      after(n * world.between(20, 400), () => {
        if (!turn.isAborted && !turn.isOver) emit(session, 'delta', turn.task);
      });
    after(world.between(20, 2_500), () => deed(session, turn));
  }

  /** It may have been stored all the same: then it ends here and now. */
  function settle(session: SimulatedSession, task: string): void {
    const { name, epoch } = session;
    session.unsettled.add(task);
    const apply = (): boolean => {
      const row = store.turns.get(task);
      if (!row || row.status || row.epoch !== epoch) return false;
      store.end(row, 'interrupted');
      store.wrote(name, epoch, 'settled', task);
      return true;
    };
    const attempt = (): void =>
      write({ check: () => null, apply }, (outcome) => {
        if (!isMine(session)) return;
        if (!outcome.ok) return after(RETRY_MS, attempt);
        session.unsettled.delete(task);
        if (outcome.value) {
          session.ended.set(task, 'interrupted');
          if (!session.untold.includes(task)) session.untold.push(task);
        }
        tell(session);
      });
    attempt();
  }

  /** What must not happen twice: stored first that it begins. */
  function deed(session: SimulatedSession, turn: Turn): void {
    if (turn.isAborted) return;
    const { task } = turn;
    const { epoch, name } = session;
    const go = (): void => {
      if (turn.isAborted) return;
      world.after(world.between(0, 3), () => {
        const done = deps.effects.get(task) ?? new Set();
        deps.effects.set(task, done.add(epoch));
      });
      after(world.between(10, 800), () => finish(session, turn, 0));
    };
    if (!options.gate) return go();
    const apply = (): boolean => {
      const row = store.turns.get(task);
      if (!row || row.status || (options.turnEpoch && row.epoch !== epoch)) return false;
      store.wrote(name, epoch, 'effects', task);
      row.hasEffects = true;
      return true;
    };
    write({ check: () => null, apply }, (outcome) => {
      if (!outcome.ok) return after(STORE_RETRY_MS, () => deed(session, turn));
      turn.isAborted ||= !outcome.value;
      go();
    });
  }

  function finish(session: SimulatedSession, turn: Turn, tries: number): void {
    if (turn.isAborted) return;
    const { task } = turn;
    const { epoch, name } = session;
    const apply = (wasOpen: boolean): boolean => {
      const row = store.turns.get(task);
      if (!row) return false;
      if (!wasOpen) return row.status === 'completed' && row.epoch === epoch;
      if (row.status) return false;
      store.wrote(name, epoch, 'ended', task);
      store.end(row, 'completed');
      return true;
    };
    const check = (): boolean => {
      const row = store.turns.get(task);
      return row !== undefined && !row.status && (!options.turnEpoch || row.epoch === epoch);
    };
    write({ check, apply }, (outcome) => {
      if (!outcome.ok) {
        if (tries < 40) after(STORE_RETRY_MS, () => finish(session, turn, tries + 1));
        return;
      }
      turn.isOver = true;
      session.turns.delete(task);
      turn.isAborted = !outcome.value;
      if (turn.isAborted) return;
      session.ended.set(task, 'completed');
      emit(session, 'end', task);
      if (session.turns.size === 0 && deps.isDraining()) giveUp(session, () => {});
    });
  }

  const isIdle = ({ isLeaving, isLive, turns, unsettled }: SimulatedSession): boolean =>
    !isLeaving && isLive && turns.size === 0 && (unsettled.size === 0 || !options.settle);

  /** Gives a session up, behind all that it has written. */
  function giveUp(session: SimulatedSession, done: (isReleased: boolean) => void): void {
    if (!isIdle(session)) return done(false);
    session.isLeaving = true;
    const { name, epoch } = session;
    deps.release(name, epoch, () => {
      if (isMine(session)) sessions.delete(name);
      for (const client of session.clients.values()) client.close(CLOSE.restart);
      session.clients.clear();
      done(true);
    });
  }

  const living = ({ sessionId }: SessionKey): SimulatedSession | undefined => {
    const session = sessions.get(sessionId);
    return session?.isLeaving ? undefined : session;
  };

  const port: Pick<LocalSessions, 'has' | 'attach' | 'detach'> & {
    yield(key: SessionKey, done: (isReleased: boolean) => void): void;
  } = {
    has: (key) => living(key) !== undefined,
    attach({ tenantId }, sessionId, client, resume) {
      const session = living({ tenantId, sessionId });
      if (!session) return undefined;
      attach(session, client, resume);
      return true;
    },
    detach({ sessionId }, clientId) {
      const session = sessions.get(sessionId);
      if (session) when(session, () => session.clients.delete(clientId));
    },
    yield(key, done) {
      const session = living(key);
      if (session && session.clients.size === 0) giveUp(session, done);
      else done(session === undefined);
    },
  };

  return {
    ...{ port, activate, say, giveUp, finish },
    all: (): readonly SimulatedSession[] => [...sessions.values()],
    get: (name: string): SimulatedSession | undefined => sessions.get(name),
    /** One that is not being given up. */
    living: (name: string): SimulatedSession | undefined => {
      const session = sessions.get(name);
      return session?.isLeaving ? undefined : session;
    },
    /** Another node could not reach this one, and asks for it. */
    wanted(name: string): void {
      const session = sessions.get(name);
      const isWatched = [...(session?.clients.keys() ?? [])].some((id) => !isGuest(id));
      if (session && (!isWatched || deps.isDraining())) giveUp(session, () => {});
    },
    abort(): void {
      for (const { turns } of sessions.values()) for (const turn of turns.values()) turn.isAborted = true;
    },
  };
}

const frame = (type: string, data: object, seq?: number): Frame => ({
  ...{ type, seq, atMs: 0, taskId: undefined, data },
});

export type SimulatedSessions = ReturnType<typeof createSimulatedSessions>;
