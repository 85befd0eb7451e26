/**
 * One boot of a simulated node: the project's own membership, links, remote clients and guests, over models of its
 * sessions, its placement and its line of writes.
 */
import { z } from 'zod';
import { createGuests, type Guests } from '../../actors/cluster/guests.ts';
import { createLinkWatch } from '../../actors/cluster/link-watch.ts';
import { createLinks, type Links } from '../../actors/cluster/links.ts';
import {
  type MembershipEffect,
  type MembershipMessage,
  membership,
  newMembership,
} from '../../actors/cluster/membership.ts';
import { createRemoteClients, type RemoteClients } from '../../actors/cluster/remote-clients.ts';
import { CLOSE } from '../../src/domain/errors.ts';
import type { Frame } from '../../src/domain/frames.ts';
import { sessionIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import type { Caller } from '../../src/domain/turn.ts';
import type { Burial, Look } from '../../src/ports/cluster.ts';
import type { LinkItem } from '../../src/ports/links.ts';
import type { Client, ResumePoint } from '../../src/ports/sessions.ts';
import type { Medium } from './medium.ts';
import type { SimulationOptions } from './options.ts';
import { createPlacementModel, keyOf } from './placement.ts';
import type { Process } from './process.ts';
import { createSimulatedSessions, type Said, type SimulatedSession } from './sessions.ts';
import type { SimulatedStore, Statement, StoreClient, StoreOutcome } from './store.ts';
import type { World } from './world.ts';

export interface BootDeps {
  readonly world: World;
  readonly options: SimulationOptions;
  readonly store: SimulatedStore;
  readonly medium: Medium;
  readonly process: Process;
  readonly storeClient: StoreClient;
  readonly nodeId: string;
  readonly boot: number;
  readonly effects: Map<string, Set<number>>;
  /** Whether the server sees the connection of that node's beats. */
  readonly isConnected: (nodeId: string, boot: number) => boolean;
  readonly onSuperseded: () => void;
  readonly onJoined: () => void;
}

export interface SimulatedBoot {
  readonly boot: number;
  readonly sessions: ReturnType<typeof createSimulatedSessions>;
  readonly clients: RemoteClients;
  readonly guests: Guests;
  readonly links: Links;
  isReady(): boolean;
  attach(session: string, client: Client, resume: ResumePoint | undefined): void;
  detach(session: string, clientId: string): void;
  say(session: string, task: string, again: boolean, done: (said: Said) => void): void;
  drain(): void;
}

export const CALLER: Caller = { tenantId: tenantIdSchema.parse('t'), tier: undefined, userId: undefined };
const CONFIG = { beatMs: 1_000, lostMs: 5_000 };
/** Of a question that came to the wrong node. */
const MAX_MOVES = 4;
const MOVED_MS = 5;

const sayBodySchema = z.object({ session: z.string(), task: z.string(), again: z.boolean() });

export function createBoot(deps: BootDeps): SimulatedBoot {
  const { world, options, store, process, storeClient, boot, nodeId } = deps;
  let state = newMembership(CONFIG, boot, nodeId);
  let isDraining = false;
  let linksMade = 0;
  const after = process.after;
  const submit = <F, R>(statement: Statement<F, R>, done: (outcome: StoreOutcome<R>) => void): void =>
    store.submit(storeClient, statement, done);
  const read = <R>(apply: () => R, done: (outcome: StoreOutcome<R>) => void): void =>
    submit({ hold: 'free', check: () => null, apply }, done);
  const write = createWriter(deps, submit, () => superseded());

  const sessions = createSimulatedSessions({
    ...{ world, options, store, boot, after, read, write },
    effects: deps.effects,
    isDraining: () => isDraining,
    release: (name, epoch, done) => placement.release(name, epoch, done),
  });
  const placement = createPlacementModel({
    ...{ world, options, store, boot, after, submit, write },
    living: sessions.living,
    activate: sessions.activate,
    onWanted: sessions.wanted,
  });

  const links: Links = createLinks({
    boot,
    after,
    now: world.now,
    newLinkId() {
      linksMade += 1;
      return options.linkIds ? `${boot}:${linksMade}` : String(boot);
    },
    push: (to, bundle, done) => deps.medium.push(process, to, bundle, done),
    onTorn(from) {
      if (!options.gaps) return;
      clients.torn(from);
      guests.census(from);
    },
    onItem(from, item) {
      if (item.kind !== 'detach') return clients.received(from, item);
      const { tenantId, sessionId, clientId } = item;
      guests.detach(from, { tenantId, sessionId }, clientId);
    },
    onRequest(from, { of, body }, answer) {
      if (of === 'attach') guests.attach(from, body, answer);
      else {
        const { session, task, again } = sayBodySchema.parse(body);
        const living = sessions.get(session);
        if (!living || living.isLeaving) answer({ type: 'notMine' });
        else sessions.say(living, task, again, (value) => answer({ type: 'ok', value }));
      }
      return true;
    },
  });

  const send = (to: number, item: LinkItem): void => {
    const apart = !options.greeting && item.kind === 'frames' && item.frames.length === 2;
    if (apart) for (const each of item.frames) links.send(to, { ...item, frames: [each] });
    else links.send(to, item);
  };
  const guests = createGuests({
    links: { send },
    sessions: sessions.port,
    text: ({ data }) => JSON.stringify({ data }),
    soon: (act) => after(0, act),
  });
  const clients = createRemoteClients({
    links: {
      ask(to, of, body, answered) {
        world.note('boot', boot, 'asks', to, of, body);
        links.ask(to, of, body, (outcome) => {
          world.note('boot', boot, 'hears', outcome);
          answered(outcome);
        });
      },
      send: links.send,
    },
    after,
    find: (_caller, session, done) =>
      placement.find(session, (place) => {
        if (place.at !== 'here') return done(place);
        done({ at: 'here' });
      }),
    moved: ({ sessionId }) => placement.moved(sessionId),
    want: ({ sessionId }, owner) => placement.want(sessionId, owner),
    attachHere: (_caller, session, client, resume) => attach(session, client, resume),
    frameOf: ({ seq, type, atMs, taskId, text }): Frame => ({
      ...{ seq, type, atMs, taskId },
      data: JSON.parse(text).data,
    }),
    refuse: (client) => client.close(CLOSE.overloaded),
  });
  const watch = createLinkWatch({ links, clients, guests });

  function attach(session: string, client: Client, resume: ResumePoint | undefined): void {
    if (isDraining) return client.close(CLOSE.restart);
    const id = sessionIdSchema.parse(session);
    if (!sessions.port.attach(CALLER, id, client, resume)) clients.attach(CALLER, id, client, resume);
  }

  function say(session: string, task: string, again: boolean, done: (said: Said) => void, moves = 0): void {
    placement.find(session, (place) => {
      if (place.at === 'unknown') return done('no');
      if (place.at === 'here') return sessions.say(place.session, task, again, done);
      const body: z.infer<typeof sayBodySchema> = { session, task, again };
      world.note('boot', boot, 'asks', place.owner, 'to take', task);
      links.ask(place.owner, 'say', body, (outcome) => {
        if (outcome.type === 'ok') return done(outcome.value === 'accepted' ? 'accepted' : 'no');
        placement.moved(session);
        if (outcome.type !== 'notMine' || moves >= MAX_MOVES) return done('no');
        after(MOVED_MS, () => say(session, task, again, done, moves + 1));
      });
    });
  }

  function superseded(): void {
    if (state.phase === 'superseded') return;
    take({ type: 'superseded' });
  }

  function take(message: MembershipMessage): void {
    const [next, effects] = membership(state, message);
    state = next;
    for (const effect of effects) carryOut(effect);
  }

  function carryOut(effect: MembershipEffect): void {
    switch (effect.type) {
      case 'bury':
        return bury(effect.boot, effect.seen);
      case 'lost':
        return lost(effect.member.boot);
      case 'joined':
        return deps.onJoined();
      case 'superseded':
        return deps.onSuperseded();
      case 'rivalled':
        return world.problem('a node took an earlier start of its own for a rival', { nodeId, boot });
      case 'adopted':
        return;
    }
  }

  function lost(other: number): void {
    world.note('boot', boot, 'lost', other);
    if (options.peersLost) watch.lost(other);
    placement.lost(other);
  }

  function bury(dead: number, seen: number): void {
    const apply = (): Burial => {
      const row = store.boots.get(dead);
      if (!row || row.state === 'dead') return 'dead already';
      if (row.beat !== seen) return 'renewed';
      world.note('boot', boot, 'buries', dead);
      store.burial(dead);
      return 'buried';
    };
    submit({ hold: { boot: dead, mode: 'bury' }, check: () => null, apply }, (outcome) => {
      if (!outcome.ok) return;
      const value = options.renewed || outcome.value !== 'renewed' ? outcome.value : 'dead already';
      take({ type: 'buried', boot: dead, outcome: value });
    });
  }

  function beat(): void {
    const askedAtMs = world.now();
    const named = new Set([...watch.named(), ...placement.owners()]);
    read(look, (outcome) => {
      if (outcome.ok) {
        const found = outcome.value;
        take({ type: 'looked', look: found, askedAtMs, answeredAtMs: world.now() });
        if (found.mine === null) return;
        const living = new Set(found.members.map((member) => member.boot));
        for (const other of named) if (!living.has(other)) lost(other);
        placement.wanted(found.wanted);
      }
      if (options.ticks) watch.tick();
      after(CONFIG.beatMs, beat);
    });
  }

  function look(): Look {
    const row = store.boots.get(boot);
    const mine = row?.state === 'live' ? 'live' : null;
    if (row && mine) row.beat += 1;
    const members = [...store.boots].flatMap(([other, { state: its, beat: counted, nodeId: name }]) =>
      its === 'dead'
        ? []
        : [
            {
              ...{ boot: other, nodeId: name, state: its, beat: counted, version: '1' },
              connected: deps.isConnected(name, other),
            },
          ],
    );
    const wanted = [...store.owners].flatMap(([session, owner]) =>
      owner.boot === boot && owner.wanted ? [{ key: keyOf(session), epoch: owner.epoch, by: 0 }] : [],
    );
    return { mine, members, adopted: 0, wanted };
  }

  deps.medium.open(boot, process, links.heard);
  after(0, beat);
  return {
    ...{ boot, sessions, clients, guests, links, attach, say },
    isReady: () => state.phase === 'joined' && !isDraining,
    detach(session, clientId) {
      if (!clients.detach(clientId))
        sessions.port.detach({ ...CALLER, sessionId: sessionIdSchema.parse(session) }, clientId);
    },
    drain() {
      isDraining = true;
      for (const session of sessions.all()) sessions.giveUp(session, () => {});
    },
  };
}

/** The one line of writes of a boot: the first on a new connection waits for whatever an old one still does. */
function createWriter(
  { options, boot }: BootDeps,
  submit: <F, R>(statement: Statement<F, R>, done: (outcome: StoreOutcome<R>) => void) => void,
  superseded: () => void,
) {
  const line: (() => void)[] = [];
  let isWriting = false;
  let isFresh = true;

  function next(): void {
    const first = line.shift();
    isWriting = first !== undefined;
    first?.();
  }

  return <F, R>(statement: Omit<Statement<F, R>, 'hold'>, done: (outcome: StoreOutcome<R>) => void): void => {
    line.push(() => {
      const mode = options.alone && isFresh ? 'alone' : 'share';
      isFresh = false;
      submit({ ...statement, hold: { boot, mode } }, (outcome) => {
        if (!outcome.ok && outcome.why === 'fenced') return superseded();
        if (!outcome.ok) isFresh = true;
        done(outcome);
        next();
      });
    });
    if (!isWriting) next();
  };
}

export type { SimulatedSession };
