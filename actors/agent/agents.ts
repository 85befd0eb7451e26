/**
 * The agents of a node from outside. Each live one is an actor that owns its configuration and publishes it here,
 * so that a turn that needs it looks into a Map and asks nobody; only what is not published is asked for.
 */
import type { AgentConfig } from '../../src/domain/agent.ts';
import type { Agent } from '../../src/domain/agent-record.ts';
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
  /** An agent that no turn has asked for in this time, up to twice, is forgotten; it is loaded again when needed. */
  readonly idleMs: number;
}

/** Order: what is asked for after `changed` returned has that version or a newer one. */
interface Agents extends AgentSource {
  /** A new version was stored. An older one than is known changes nothing. */
  changed(agent: Agent): void;
  /** What is stored may be newer than what is known: the next asker has it loaded. */
  invalidate(tenantId: TenantId, agentId: AgentId): void;
  onChange(listener: (tenantId: TenantId, agentId: AgentId) => void): void;
  stats(): AgentStats;
}

type Found = Reply<AgentConfig>;

/** Settled promises, made once: a turn that finds its agent here makes none. */
interface Published {
  readonly current: Promise<Found>;
  readonly versions: ReadonlyMap<number, Promise<Found>>;
}

interface AgentRef {
  readonly address: Address<AgentMessage>;
  published: Published | null;
  /** Nothing older may be published: such a version is stored. */
  expected: number;
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
  const { actors, store, builtIn, clock, log } = options;
  const refs = new Map<string, AgentRef>();
  const absent = new Map<string, number>();
  const listeners: ((tenantId: TenantId, agentId: AgentId) => void)[] = [];
  let hits = 0;
  let misses = 0;

  const builtInFound: Promise<Found> = Promise.resolve({ ok: true, value: builtIn });
  const notFound: Promise<Found> = Promise.resolve({ ok: false, error: refusal('AGENT_NOT_FOUND') });

  const kind: ActorKind<AgentState, AgentMessage, AgentEffect> = {
    kind: 'agent',
    behaviour: agent,
    recover: recoverAgent,
    mailboxLimit: 1_000,
    restarts: { max: 3, withinMs: 60_000 },
    onStopped(state) {
      refs.delete(keyOf(state.tenantId, state.agentId));
      for (const { replyTo } of state.waiting) actors.reply(replyTo, gone());
    },
    onDeadLetter(message) {
      if (message.type === 'find') actors.reply(message.replyTo, gone());
    },
    idle: { afterMs: options.idleMs, message: { type: 'idle' } },
  };

  function begin(key: string, tenantId: TenantId, agentId: AgentId): AgentRef {
    if (refs.size >= MAX_LIVE) makeRoom();
    const address = actors.spawn(null, kind, {
      name: key,
      initial: newAgent(tenantId, agentId),
      interpret: (effect) => interpret(ref, key, tenantId, agentId, effect),
    });
    const ref: AgentRef = { address, published: null, expected: 0, used: false, asking: new Map() };
    refs.set(key, ref);
    return ref;
  }

  function makeRoom(): void {
    for (const ref of refs.values()) if (ref.published && actors.passivate(ref.address)) return;
  }

  function interpret(
    ref: AgentRef,
    key: string,
    tenantId: TenantId,
    agentId: AgentId,
    effect: AgentEffect,
  ): void {
    switch (effect.type) {
      case 'load':
        return load(ref, tenantId, agentId, effect);
      case 'publish':
        if (effect.current.version < ref.expected) return;
        absent.delete(key);
        ref.published = published(effect.current, effect.pins);
        return;
      case 'withdraw':
        ref.published = null;
        return;
      case 'publishAbsence':
        if (effect.version < ref.expected) return;
        ref.published = null;
        return rememberAbsence(key, effect.untilMs);
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
    { address }: AgentRef,
    tenantId: TenantId,
    agentId: AgentId,
    { attempt, version }: Extract<AgentEffect, { type: 'load' }>,
  ): void {
    const tell = (message: AgentMessage): void => {
      if (actors.isAlive(address)) actors.tell(address, message);
    };
    store.get(tenantId, agentId, version ?? undefined).then(
      (found) => tell({ type: 'loaded', attempt, agent: found, atMs: clock.now() }),
      (error: unknown) => {
        log.warn({ err: error, tenant_id: tenantId, agent_id: agentId }, 'agent could not be loaded');
        // A service that keeps agents may say more than that it can not be had.
        const known = error instanceof RefusalError ? error.data : undefined;
        const told = known ?? refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 });
        tell({ type: 'loadFailed', attempt, error: told, atMs: clock.now() });
      },
    );
  }

  function rememberAbsence(key: string, untilMs: number): void {
    absent.delete(key);
    absent.set(key, untilMs);
    const now = clock.now();
    for (const [oldest, until] of absent) {
      if (until > now && absent.size <= MAX_ABSENT) return;
      absent.delete(oldest);
    }
  }

  function isAbsent(key: string): boolean {
    const untilMs = absent.get(key);
    if (untilMs === undefined) return false;
    if (untilMs > clock.now()) return true;
    absent.delete(key);
    return false;
  }

  /** One question for all who ask while it is under way. */
  function ask(
    key: string,
    tenantId: TenantId,
    agentId: AgentId,
    version: number | undefined,
  ): Promise<Found> {
    const { address, asking } = refs.get(key) ?? begin(key, tenantId, agentId);
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
      .catch((error: unknown): Found => ({ ok: false, error: lost(error) }))
      .finally(() => {
        if (asking.get(wanted) === answer) asking.delete(wanted);
      });
    asking.set(wanted, answer);
    return answer;
  }

  return {
    agent(tenantId, agentId, version) {
      if (agentId === builtIn.id)
        return version === undefined || version === builtIn.version ? builtInFound : noVersion(version);
      const key = keyOf(tenantId, agentId);
      const ref = refs.get(key);
      const known = version === undefined ? ref?.published?.current : ref?.published?.versions.get(version);
      if (ref && known) {
        hits += 1;
        ref.used = true;
        return known;
      }
      if (isAbsent(key)) {
        hits += 1;
        return notFound;
      }
      misses += 1;
      return ask(key, tenantId, agentId, version);
    },
    changed(stored) {
      const key = keyOf(stored.tenant_id, stored.id);
      absent.delete(key);
      const ref = refs.get(key);
      if (ref) {
        if (stored.version <= ref.expected) return;
        ref.expected = stored.version;
        ref.published = null;
        ref.asking.clear();
        actors.tell(ref.address, { type: 'changed', agent: stored, atMs: clock.now() });
      }
      for (const listener of listeners) listener(stored.tenant_id, stored.id);
    },
    invalidate(tenantId, agentId) {
      const key = keyOf(tenantId, agentId);
      absent.delete(key);
      const ref = refs.get(key);
      if (ref) {
        ref.expected = 0;
        ref.published = null;
        ref.asking.clear();
        actors.tell(ref.address, { type: 'invalidated', atMs: clock.now() });
      }
      for (const listener of listeners) listener(tenantId, agentId);
    },
    onChange: (listener) => void listeners.push(listener),
    stats: () => ({ live: refs.size, hits, misses }),
  };
}

function published(current: AgentConfig, pins: readonly AgentConfig[]): Published {
  const found = (value: AgentConfig): Promise<Found> => Promise.resolve({ ok: true, value });
  const newest = found(current);
  const versions = new Map(pins.map((pin) => [pin.version, found(pin)]));
  return { current: newest, versions: versions.set(current.version, newest) };
}

const noVersion = (version: number): Promise<Found> =>
  Promise.resolve({
    ok: false,
    error: refusal('NOT_FOUND', { message: `The agent has no version ${version}.` }),
  });

const gone = (): Found => ({ ok: false, error: refusal('OVERLOADED', { retryAfterMs: 1_000 }) });

/** The actor did not answer: its mailbox is full, it is gone, or the store took too long. */
function lost(error: unknown): ErrorData {
  if (!(error instanceof AskError)) throw error;
  return refusal(error.reason === 'full' ? 'OVERLOADED' : 'STORE_UNAVAILABLE', { retryAfterMs: 1_000 });
}

/** No id may hold a slash. */
const keyOf = (tenantId: TenantId, agentId: AgentId): string => `${tenantId}/${agentId}`;
