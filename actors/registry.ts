/** Who lives on this node: tenants, sessions and turns by their ids, so that nobody has to ask a parent. */
import type { TenantNotice } from '../src/domain/agent-record.ts';
import type { Close, ErrorData } from '../src/domain/errors.ts';
import type { PushedFrame } from '../src/domain/frames.ts';
import type { SessionId, TaskId, TenantId } from '../src/domain/ids.ts';
import type { Tier } from '../src/domain/tiers.ts';
import type { Client } from '../src/ports/sessions.ts';
import type { Epoch } from '../src/ports/store.ts';
import type { NodeStats } from '../src/ports/telemetry.ts';
import type { ExecutionMessage } from './execution/execution.ts';
import type { Address } from './runtime/actor.ts';
import { type EventStream, unnumbered } from './session/event-stream.ts';
import type { SessionMessage } from './session/protocol.ts';
import type { TenantMessage } from './tenant/protocol.ts';
import { createRateMemory, type RateMemory } from './tenant/rate-memory.ts';

export interface TenantRef {
  readonly tenantId: TenantId;
  /** Tells this life of the tenant from earlier and later ones. */
  readonly tenancy: number;
  readonly address: Address<TenantMessage>;
  readonly sessions: Set<SessionRef>;
}

export interface SessionRef {
  readonly tenant: TenantRef;
  readonly sessionId: SessionId;
  readonly address: Address<SessionMessage>;
  readonly stream: EventStream;
  /** By which this node owns it. */
  epoch: Epoch;
  /** No placement knows it: it is for a run alone, or has been given up. */
  unplaced: boolean;
  /** Told once it is released; null while nobody waits for that. */
  whenReleased: (() => void)[] | null;
  /** Clients whose attach has not been handled yet. */
  readonly arriving: Map<string, Client>;
  /** The execution that runs now. */
  execution: ExecutionRef | null;
}

export interface ExecutionRef {
  readonly taskId: TaskId;
  readonly tier: Tier;
  readonly address: Address<ExecutionMessage>;
  readonly abort: AbortController;
  /** Of its turn. */
  readonly epoch: Epoch;
  readonly model: string;
  /** By performance.now(), as are all times here. */
  readonly startedAt: number;
  firstTokenAt: number | null;
  /** A call of the model that has begun and not ended: estimates what it has used. */
  openCall: (() => number) | null;
}

interface LiveTurn {
  readonly session: SessionRef;
  readonly tier: Tier;
  /** What it holds, roughly. */
  readonly bytes: number;
}

export interface Registry {
  readonly tenants: Map<TenantId, TenantRef>;
  /** What was used of the rates of those who left: of tenants by the minute, of sessions by the hour. */
  readonly tenantRates: RateMemory;
  readonly sessionRates: RateMemory;
  session(tenantId: TenantId, sessionId: SessionId): SessionRef | undefined;
  addSession(session: SessionRef): void;
  /** Forgets a session; a newer one of the same id stays. */
  removeSession(session: SessionRef): void;
  sessions(): Iterable<SessionRef>;
  /** The session a turn lives in, from the moment it is offered to its terminal event or refusal. */
  turn(tenantId: TenantId, taskId: TaskId): LiveTurn | undefined;
  /** A turn that another session has stays there. `bytes`: what it holds, of one that is new. */
  track(session: SessionRef, taskId: TaskId, tier: Tier, bytes?: number): void;
  /** Whether a turn of so many bytes finds room beside the other turns of its tenant, and of the node. */
  hasRoom(tenantId: TenantId, bytes: number): boolean;
  untrack(session: SessionRef, taskId: TaskId): void;
  /** Sessions of a tenant in which turns live. */
  busy(tenantId: TenantId): Iterable<SessionRef>;
  /** All sessions in which turns live. */
  busySessions(): ReadonlySet<SessionRef>;
  /** Resolves when no turn lives any more (true), or after `ms` (false). */
  quiet(ms: number): Promise<boolean>;
  counts(): Pick<NodeStats, 'tenants' | 'sessions' | 'turns'>;
}

/** Closes a session's clients, those too that are not attached yet; `told`: after an error. */
export function closeClients(
  { arriving, stream: outbox }: SessionRef,
  close: Close,
  told: { readonly error: ErrorData; readonly atMs: number } | null,
): void {
  if (told) outbox.notice({ type: 'error', data: told.error }, told.atMs);
  for (const client of arriving.values()) {
    if (told) client.send(unnumbered({ type: 'error', data: told.error }, told.atMs));
    client.close(close);
  }
  arriving.clear();
  outbox.close(close);
}

/** Tells a tenant's clients on this node something that no session has to do with. */
export function notifyTenant(
  registry: Registry,
  { tenant_id, task_id, event, data }: TenantNotice,
  atMs: number,
): void {
  const frame = { type: event, taskId: task_id, data: { channel: `tenant:${tenant_id}`, event, data } };
  for (const { stream: outbox } of registry.tenants.get(tenant_id)?.sessions ?? [])
    outbox.notice(frame, atMs);
}

/** Sends a frame to the clients of a tenant's sessions, each once; returns how many of them live here. */
export function pushFrame(
  registry: Registry,
  tenantId: TenantId,
  sessionIds: readonly SessionId[] | undefined,
  frame: PushedFrame,
  atMs: number,
): number {
  const all = registry.tenants.get(tenantId)?.sessions ?? new Set<SessionRef>();
  const wanted = sessionIds?.map((sessionId) => registry.session(tenantId, sessionId));
  const found = wanted ? new Set(wanted.filter((session) => session !== undefined)) : all;
  for (const { stream: outbox } of found) outbox.notice(frame, atMs);
  return found.size;
}

/** No id may hold a slash, so two ids joined by one are unambiguous. */
export const keyOf = (tenantId: TenantId, id: SessionId | TaskId): string => `${tenantId}/${id}`;

/** Bytes that turns may hold in memory, waiting or running: those of one tenant, and of the node. */
const MAX_TENANT_BYTES = 64 * 1024 * 1024;
const MAX_HELD_BYTES = 256 * 1024 * 1024;

export function createRegistry(): Registry {
  const tenants = new Map<TenantId, TenantRef>();
  const sessions = new Map<string, SessionRef>();
  const turns = new Map<string, LiveTurn>();
  const bytesOf = new Map<TenantId, number>();
  let heldBytes = 0;
  let quiet: (() => void)[] = [];

  function hold(tenantId: TenantId, bytes: number): void {
    heldBytes += bytes;
    const ofTenant = (bytesOf.get(tenantId) ?? 0) + bytes;
    if (ofTenant > 0) bytesOf.set(tenantId, ofTenant);
    else bytesOf.delete(tenantId);
  }

  return {
    tenants,
    tenantRates: createRateMemory(),
    sessionRates: createRateMemory(),
    session: (tenantId, sessionId) => sessions.get(keyOf(tenantId, sessionId)),
    addSession(session) {
      sessions.set(keyOf(session.tenant.tenantId, session.sessionId), session);
      session.tenant.sessions.add(session);
    },
    removeSession(session) {
      const key = keyOf(session.tenant.tenantId, session.sessionId);
      if (sessions.get(key) === session) sessions.delete(key);
      session.tenant.sessions.delete(session);
    },
    sessions: () => sessions.values(),
    turn: (tenantId, taskId) => turns.get(keyOf(tenantId, taskId)),
    track(session, taskId, tier, bytes = 0) {
      const key = keyOf(session.tenant.tenantId, taskId);
      const live = turns.get(key);
      if (live && live.session !== session) return;
      if (!live) hold(session.tenant.tenantId, bytes);
      turns.set(key, { session, tier, bytes: live?.bytes ?? bytes });
    },
    hasRoom(tenantId, bytes) {
      const ofTenant = bytesOf.get(tenantId) ?? 0;
      return ofTenant + bytes <= MAX_TENANT_BYTES && heldBytes + bytes <= MAX_HELD_BYTES;
    },
    untrack(session, taskId) {
      const key = keyOf(session.tenant.tenantId, taskId);
      const live = turns.get(key);
      if (live?.session !== session) return;
      hold(session.tenant.tenantId, -live.bytes);
      turns.delete(key);
      if (turns.size > 0) return;
      const waiting = quiet;
      quiet = [];
      for (const listener of waiting) listener();
    },
    busy(tenantId) {
      const found = new Set<SessionRef>();
      for (const { session } of turns.values()) if (session.tenant.tenantId === tenantId) found.add(session);
      return found;
    },
    busySessions: () => new Set([...turns.values()].map(({ session }) => session)),
    quiet(ms) {
      if (turns.size === 0) return Promise.resolve(true);
      return new Promise((resolve) => {
        const timer = setTimeout(() => resolve(false), ms);
        quiet.push(() => {
          clearTimeout(timer);
          resolve(true);
        });
      });
    },
    counts() {
      const none = () => ({ running: 0, queued: 0 });
      const byTier = { free: none(), advance: none(), professional: none(), enterprise: none() };
      for (const [key, { session, tier }] of turns) {
        const { execution, tenant } = session;
        const runs = execution && key === keyOf(tenant.tenantId, execution.taskId);
        byTier[tier][runs ? 'running' : 'queued'] += 1;
      }
      return { tenants: tenants.size, sessions: sessions.size, turns: byTier };
    },
  };
}
