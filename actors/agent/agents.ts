/**
 * The agents of a node from outside. Each live one is an actor that owns its configuration and publishes it here,
 * so that a turn finds it in a Map; only where nothing is published the actor is asked.
 */
import { LRUCache } from 'lru-cache';
import type { AgentConfig } from '../../src/domain/agent.ts';
import type { Agent } from '../../src/domain/agent-record.ts';
import type { AgentNews } from '../../src/domain/broadcast.ts';
import { type ErrorData, RefusalError, type Reply, refusal } from '../../src/domain/errors.ts';
import type { AgentId, TenantId } from '../../src/domain/ids.ts';
import type { AgentStore } from '../../src/ports/management.ts';
import type { AgentSource } from '../../src/ports/runner.ts';
import type { AgentStats, Clock, Log } from '../../src/ports/telemetry.ts';
import { type ActorKind, type ActorSystem, type Address, unreachable } from '../runtime/actor.ts';
import { AskError } from '../runtime/asks.ts';
import {
  type AgentEffect,
  type AgentMessage,
  type AgentState,
  agent,
  LOAD_MS,
  newAgent,
  recoverAgent,
} from './agent.ts';

interface AgentsOptions {
  readonly actors: ActorSystem;
  readonly store: Pick<AgentStore, 'get'>;
  /** The agent that every tenant has; never stored. */
  readonly builtIn: AgentConfig;
  readonly clock: Clock;
  readonly log: Log;
  /** An agent that no turn has used for one to two times as long leaves memory; it is loaded again when needed. */
  readonly idleMs: number;
}

/** Order: what is asked for after `changed` returned has that version or a newer one. */
interface Agents extends AgentSource {
  /** A new version was stored. An older one than is known changes nothing. */
  changed(agent: Agent): void;
  /** The stored version may be newer than the known one: the next asker has it loaded. */
  invalidate(tenantId: TenantId, agentId: AgentId): void;
  /** A version was stored on some node, perhaps this one: what is older here is loaded anew. */
  outdated(news: AgentNews): void;
  /** As `invalidate`, of all agents. Turns that wait keep what they have looked up. */
  invalidateAll(): void;
  onChange(listener: ChangeListener): void;
  stats(): AgentStats;
}

type Found = Reply<AgentConfig>;
type ChangeListener = (tenantId: TenantId, agentId: AgentId) => void;

/** Settled promises, made once: a turn that finds its agent here makes none. */
interface Published {
  readonly current: Promise<Found>;
  readonly newest: number;
  readonly versions: ReadonlyMap<number, Promise<Found>>;
}

/** A live agent. */
interface AgentRef {
  readonly key: string;
  readonly tenantId: TenantId;
  /** As it was asked for: an id, or a slug. */
  readonly agentId: AgentId;
  /** The id of what is published; undefined before. */
  id: AgentId | undefined;
  readonly address: Address<AgentMessage>;
  published: Published | null;
  /** Nothing older may be published: such a version is stored. */
  expected: number;
  /** Its number is raised when nothing that is known can be relied on. */
  generation: number;
  /** A turn has used what is published since the last look. */
  used: boolean;
  /** Questions under way, by version; 0 is the newest. */
  readonly asking: Map<number, Promise<Found>>;
}

/** Live agents of a node; beyond it the one that came first goes. */
const MAX_LIVE = 20_000;
/** Agents that are known not to exist. */
const MAX_ABSENT = 10_000;
const NEWEST = 0;

export function createAgents(options: AgentsOptions): Agents {
  const { actors, builtIn, clock } = options;
  const live = createLiveAgents(options);
  const listeners: ChangeListener[] = [];
  let generation = 0;
  let hits = 0;
  let misses = 0;

  const builtInFound: Promise<Found> = Promise.resolve({ ok: true, value: builtIn });
  const notFound: Promise<Found> = Promise.resolve(no(refusal('AGENT_NOT_FOUND')));

  /** What is published is out of date: nothing older than `expected` is published from here on. */
  function outdate(ref: AgentRef, expected: number, message: AgentMessage): void {
    ref.expected = expected;
    ref.published = null;
    ref.asking.clear();
    actors.tell(ref.address, message);
  }

  function invalidate(tenantId: TenantId, agentId: AgentId): void {
    const named = live.found(keyOf(tenantId, agentId));
    const id = named?.id ?? agentId;
    const refs = [named, live.found(keyOf(tenantId, id)), ...live.bySlug(tenantId, id)];
    for (const ref of new Set(refs)) if (ref) outdate(ref, 0, { type: 'invalidated', atMs: clock.now() });
    for (const listener of listeners) listener(tenantId, id);
  }

  /** The agent, if it lives; one that is known from before the last `invalidateAll` is loaded anew. */
  function found(key: string): AgentRef | undefined {
    const ref = live.get(key);
    if (ref && ref.generation !== generation) {
      ref.generation = generation;
      outdate(ref, 0, { type: 'invalidated', atMs: clock.now() });
    }
    return ref;
  }

  return {
    agent(tenantId, agentId, version) {
      if (agentId === builtIn.id)
        return version === undefined || version === builtIn.version ? builtInFound : noVersion(version);
      const key = keyOf(tenantId, agentId);
      const ref = found(key);
      const known = version === undefined ? ref?.published?.current : ref?.published?.versions.get(version);
      if (ref && known) {
        hits += 1;
        ref.used = true;
        return known;
      }
      if (live.isAbsent(key)) {
        hits += 1;
        return notFound;
      }
      misses += 1;
      return ask(options, ref ?? live.begin(key, tenantId, agentId, generation), version);
    },
    changed(stored) {
      // Whoever asked by its slug, or asks by the slug that it has now.
      for (const ref of live.bySlug(stored.tenant_id, stored.id, stored.slug))
        outdate(ref, 0, { type: 'invalidated', atMs: clock.now() });
      const ref = live.found(keyOf(stored.tenant_id, stored.id));
      if (ref && stored.version <= ref.expected) return;
      if (ref) outdate(ref, stored.version, { type: 'changed', agent: stored, atMs: clock.now() });
      for (const listener of listeners) listener(stored.tenant_id, stored.id);
    },
    invalidate,
    outdated({ tenantId, agentId, version, slug }) {
      if (version === undefined) return invalidate(tenantId, agentId);
      const named = live.found(keyOf(tenantId, agentId));
      const refs = new Set([...(named ? [named] : []), ...live.bySlug(tenantId, agentId, slug)]);
      const older = [...refs].filter((ref) => !has(ref, agentId, version));
      for (const ref of older) outdate(ref, 0, { type: 'invalidated', atMs: clock.now() });
      if (older.length > 0) for (const listener of listeners) listener(tenantId, agentId);
    },
    invalidateAll() {
      generation += 1;
      live.forgetAbsent();
    },
    onChange: (listener) => void listeners.push(listener),
    stats: () => ({ live: live.size(), hits, misses }),
  };
}

/** Whether it is that version of that agent, or a newer one, or is about to be. */
const has = ({ agentId, id, expected, published }: AgentRef, wanted: AgentId, version: number): boolean =>
  (id === wanted || agentId === wanted) && (expected >= version || (published?.newest ?? 0) >= version);

/** One question for all who ask while it is under way. */
function ask(
  { actors, clock }: AgentsOptions,
  { address, asking }: AgentRef,
  version: number | undefined,
): Promise<Found> {
  const wanted = version ?? NEWEST;
  const running = asking.get(wanted);
  if (running) return running;
  const answer = actors
    .ask<AgentMessage, Found>(address, LOAD_MS, (replyTo) => ({
      type: 'find',
      replyTo,
      version: version ?? null,
      atMs: clock.now(),
    }))
    .catch((error: unknown): Found => no(lost(error)))
    .finally(() => {
      if (asking.get(wanted) === answer) asking.delete(wanted);
    });
  asking.set(wanted, answer);
  return answer;
}

/** The agents that are actors now, and those that are known not to exist. */
function createLiveAgents(options: AgentsOptions) {
  const { actors, clock } = options;
  const refs = new Map<string, AgentRef>();
  /** Until when they count as absent, in ms since the epoch. */
  const absent = new LRUCache<string, number>({ max: MAX_ABSENT });
  /** Agents that were asked for by a slug, by the key of their id. */
  const slugs = new Map<string, Set<AgentRef>>();

  const kind: ActorKind<AgentState, AgentMessage, AgentEffect> = {
    kind: 'agent',
    behaviour: agent,
    recover: recoverAgent,
    mailboxLimit: 1_000,
    restarts: { max: 3, withinMs: 60_000 },
    onStopped(state) {
      const key = keyOf(state.tenantId, state.agentId);
      const ref = refs.get(key);
      if (ref) unlink(ref);
      refs.delete(key);
      for (const { replyTo } of state.waiting) actors.reply(replyTo, gone());
    },
    onDeadLetter(message) {
      if (message.type === 'find') actors.reply(message.replyTo, gone());
    },
    idle: { afterMs: options.idleMs, message: { type: 'idle' } },
  };

  function unlink(ref: AgentRef): void {
    const key = ref.id && keyOf(ref.tenantId, ref.id);
    const linked = key && slugs.get(key);
    if (!linked) return;
    linked.delete(ref);
    if (linked.size === 0) slugs.delete(key);
  }

  /** What is published of `ref` is the agent of that id. */
  function link(ref: AgentRef, id: AgentId): void {
    if (ref.id === id) return;
    unlink(ref);
    ref.id = id;
    if (id === ref.agentId) return;
    const key = keyOf(ref.tenantId, id);
    slugs.set(key, (slugs.get(key) ?? new Set()).add(ref));
  }

  function makeRoom(): void {
    for (const ref of refs.values()) if (ref.published && actors.passivate(ref.address)) return;
  }

  return {
    get: (key: string): AgentRef | undefined => refs.get(key),
    /** Of an agent that something was stored of: it is absent no more. */
    found(key: string): AgentRef | undefined {
      absent.delete(key);
      return refs.get(key);
    },
    /** Those that were asked for by a slug and are that agent, or may now be. */
    bySlug(tenantId: TenantId, id: AgentId, slug?: string): readonly AgentRef[] {
      const linked = slugs.get(keyOf(tenantId, id)) ?? [];
      const named = slug === undefined || slug === id ? undefined : this.found(`${tenantId}/${slug}`);
      return [...new Set([...linked, ...(named ? [named] : [])])];
    },
    isAbsent: (key: string): boolean => (absent.get(key) ?? 0) > clock.now(),
    begin(key: string, tenantId: TenantId, agentId: AgentId, generation: number): AgentRef {
      if (refs.size >= MAX_LIVE) makeRoom();
      const address = actors.spawn(null, kind, {
        name: key,
        initial: newAgent(tenantId, agentId),
        interpret(effect) {
          if (effect.type === 'publish') link(ref, effect.current.id);
          interpret(options, absent, ref, effect);
        },
      });
      const state = { id: undefined, published: null, expected: 0, used: false, asking: new Map() };
      const ref: AgentRef = { key, tenantId, agentId, address, generation, ...state };
      refs.set(key, ref);
      return ref;
    },
    forgetAbsent: (): void => absent.clear(),
    size: (): number => refs.size,
  };
}

function interpret(
  options: AgentsOptions,
  absent: LRUCache<string, number>,
  ref: AgentRef,
  effect: AgentEffect,
): void {
  const { actors } = options;
  switch (effect.type) {
    case 'load':
      return load(options, ref, effect);
    case 'publish':
      if (effect.current.version < ref.expected) return;
      absent.delete(ref.key);
      ref.published = published(effect.current, effect.pins);
      return;
    case 'withdraw':
      ref.published = null;
      return;
    case 'publishAbsence':
      if (effect.version < ref.expected) return;
      ref.published = null;
      absent.set(ref.key, effect.untilMs);
      return;
    case 'answer':
      return actors.reply(effect.replyTo, effect.found);
    case 'leave':
      actors.passivate(ref.address);
      return;
    case 'leaveIfUnused':
      if (!ref.used) actors.passivate(ref.address);
      ref.used = false;
      return;
    default:
      return unreachable(effect);
  }
}

function load(
  { actors, store, clock, log }: AgentsOptions,
  { address, tenantId, agentId }: AgentRef,
  { attempt, version }: Extract<AgentEffect, { type: 'load' }>,
): void {
  const tell = (message: AgentMessage): void => {
    if (actors.isAlive(address)) actors.tell(address, message);
  };
  store.get(tenantId, agentId, version ?? undefined).then(
    (found) => tell({ type: 'loaded', attempt, agent: found, atMs: clock.now() }),
    (error: unknown) => {
      log.warn({ err: error, tenant_id: tenantId, agent_id: agentId }, 'agent could not be loaded');
      // An external service may give a reason of its own.
      const refused =
        error instanceof RefusalError ? error.data : refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 });
      tell({ type: 'loadFailed', attempt, error: refused, atMs: clock.now() });
    },
  );
}

function published(current: AgentConfig, pins: readonly AgentConfig[]): Published {
  const found = (value: AgentConfig): Promise<Found> => Promise.resolve({ ok: true, value });
  const newest = found(current);
  const versions = new Map(pins.map((pin) => [pin.version, found(pin)]));
  return { current: newest, newest: current.version, versions: versions.set(current.version, newest) };
}

const no = (error: ErrorData): Found => ({ ok: false, error });

const noVersion = (version: number): Promise<Found> =>
  Promise.resolve(no(refusal('NOT_FOUND', { message: `The agent has no version ${version}.` })));

const gone = (): Found => no(refusal('OVERLOADED', { retryAfterMs: 1_000 }));

/** The actor did not answer: its mailbox is full, it is gone, or the store took too long. */
function lost(error: unknown): ErrorData {
  if (!(error instanceof AskError)) throw error;
  return refusal(error.reason === 'full' ? 'OVERLOADED' : 'STORE_UNAVAILABLE', { retryAfterMs: 1_000 });
}

/** No id may hold a slash. */
const keyOf = (tenantId: TenantId, agentId: AgentId): string => `${tenantId}/${agentId}`;
