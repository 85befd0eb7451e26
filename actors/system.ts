/**
 * The actors of a node from outside: the directory that edges speak to. It finds or makes the tenant and the
 * session a request is for, offers it the message, and answers with what the session decides.
 */
import type { TenantNotice } from '../src/domain/agent-record.ts';
import { CLOSE, type ErrorData, RefusalError, type Reply, refusal } from '../src/domain/errors.ts';
import type { SessionId, TenantId } from '../src/domain/ids.ts';
import type { Tier } from '../src/domain/tiers.ts';
import {
  type Caller,
  type CancelReply,
  held,
  type RunningTool,
  type SayReply,
  sizeOf,
  type TurnRecord,
  type TurnRequest,
  type TurnStanding,
} from '../src/domain/turn.ts';
import type { AgentRunner, AgentSource } from '../src/ports/runner.ts';
import type { Client, Directory } from '../src/ports/sessions.ts';
import type { Store } from '../src/ports/store.ts';
import type { Clock, Log, Metrics } from '../src/ports/telemetry.ts';
import { createExecutionEffects } from './execution/effects.ts';
import type { ExecutionMessage } from './execution/execution.ts';
import { createRegistry, notifyTenant, pushFrame, type Registry, type SessionRef } from './registry.ts';
import type { ActorSystem, ReplyTo } from './runtime/actor.ts';
import { createActorSystem } from './runtime/actor-system.ts';
import { AskError, type AskFailure } from './runtime/asks.ts';
import { createSessions, type SessionOf } from './session/activation.ts';
import { createPacer } from './session/delta-pacer.ts';
import { logSaid } from './session/effects.ts';
import { taskTaken } from './session/ending.ts';
import type { SessionConfig, SessionMessage } from './session/protocol.ts';
import { createTenants } from './tenant/activation.ts';

/** An answer that takes longer than this is given up; the turn itself may still be accepted. */
const ANSWER_MS = 30_000;
/** Cancelled turns get this long to end when the node drains. */
const CANCEL_GRACE_MS = 5_000;
/** Clients of a draining node come back after a random part of this. */
const RECONNECT_SPREAD_MS = 5_000;

export function createSystem(options: SystemOptions): System {
  const { clock, metrics, log } = options;
  const registry = createRegistry();
  const pacer = createPacer();
  const actors =
    options.actors ??
    createActorSystem({
      clock,
      log,
      onCrash: (kind) => metrics.actorCrashed(kind),
      onDeadLetter: (kind) => metrics.deadLetter(kind),
    });
  const { tiers, models, requestsPerHour, maxIterations, maxTimeMs } = options;
  const shared = { ...options, actors, registry };
  const sessionOf = createSessions({
    ...shared,
    config: { tiers, models, requestsPerHour, maxIterations, maxTimeMs },
    pacer,
    tenantOf: createTenants(shared),
    execute: createExecutionEffects(shared),
  });
  let arrivals = 0;
  const parts: Parts = {
    options,
    actors,
    registry,
    sessionOf,
    draining: false,
    arrival() {
      arrivals += 1;
      return arrivals;
    },
  };
  return {
    ...createDirectory(parts),
    notify: (notice) => notifyTenant(registry, notice, clock.now()),
    tenants: () => registry.tenants.keys(),
    tierSet(tenantId, tier) {
      const live = registry.tenants.get(tenantId);
      if (live) actors.tell(live.address, { type: 'tierSet', tier });
    },
    arrival: parts.arrival,
    drain: (graceMs) => drain(parts, graceMs),
    async close() {
      await actors.close();
      pacer.close();
    },
  };
}

/** What the directory works with. */
interface Parts {
  readonly options: SystemOptions;
  readonly actors: ActorSystem;
  readonly registry: Registry;
  readonly sessionOf: SessionOf;
  readonly arrival: () => number;
  draining: boolean;
}

function createDirectory(parts: Parts): Directory {
  const { options, actors, registry, sessionOf } = parts;
  const { clock } = options;
  return {
    attach: (caller, sessionId, client, resume) => {
      const ref = sessionOf(caller.tenantId, sessionId, caller.tier);
      ref.arriving.set(client.id, client);
      const attach = { type: 'attach', clientId: client.id, tier: caller.tier, resume } as const;
      const atMs = clock.now();
      if (actors.offer(ref.address, { ...attach, atMs }) === 'delivered') return;
      ref.arriving.delete(client.id);
      const data = refusal('OVERLOADED', { retryAfterMs: 1_000 });
      client.send({ type: 'error', seq: undefined, atMs, taskId: undefined, data });
      client.close(CLOSE.overloaded);
    },
    detach(tenantId, sessionId, clientId) {
      const ref = registry.session(tenantId, sessionId);
      if (!ref) return;
      ref.arriving.delete(clientId);
      ref.stream.detach(clientId);
      actors.tell(ref.address, { type: 'detach', clientId });
    },
    say: (request, observer) => say(parts, request, observer),
    cancel: (tenantId, taskId) => cancel(parts, tenantId, taskId),
    turn: (tenantId, taskId) => turn(parts, tenantId, taskId),
    async messages(tenantId, sessionId, page) {
      const found = await reading(parts, () => options.store.session(tenantId, sessionId, page));
      if (!found.ok) return found;
      if (found.value) return { ok: true, value: found.value };
      if (registry.session(tenantId, sessionId)) return { ok: true, value: { messages: [], hasMore: false } };
      return { ok: false, error: noSession() };
    },
    push: (tenantId, sessions, frame) => pushFrame(registry, tenantId, sessions, frame, clock.now()),
    async forget(tenantId, sessionId) {
      const reply = await forget(parts, tenantId, sessionId);
      // It came as the session left, deleted by another or idle: who looks again knows which.
      return !reply.ok && reply.error.code === 'BUSY' ? forget(parts, tenantId, sessionId) : reply;
    },
    stats() {
      const agents = options.agents.stats?.();
      return {
        ...registry.counts(),
        draining: parts.draining,
        actors: actors.stats(),
        ...(agents ? { agents } : {}),
      };
    },
  };
}

async function forget(parts: Parts, tenantId: TenantId, sessionId: SessionId): Promise<Reply<null>> {
  const { options, registry, sessionOf } = parts;
  const stored = await reading(parts, () =>
    options.store.session(tenantId, sessionId, { limit: 1, before: undefined }),
  );
  if (!stored.ok) return stored;
  if (!stored.value && !registry.session(tenantId, sessionId)) return { ok: false, error: noSession() };
  return ask<Reply<null>>(
    parts,
    sessionOf(tenantId, sessionId, undefined),
    (replyTo) => ({ type: 'forget', replyTo, atMs: options.clock.now() }),
    (error) => ({ ok: false, error }),
  );
}

/** Asks a session, and turns a lost question into a refusal. */
async function ask<R>(
  { actors }: Parts,
  ref: SessionRef,
  make: (replyTo: ReplyTo<R>) => SessionMessage,
  lost: (error: ErrorData, reason: AskFailure) => R,
  taken?: () => void,
): Promise<R> {
  try {
    return await actors.ask<SessionMessage, R>(ref.address, ANSWER_MS, make, taken);
  } catch (error) {
    if (!(error instanceof AskError)) throw error;
    return lost(refusal('OVERLOADED', { retryAfterMs: 1_000 }), error.reason);
  }
}

/** What the store answers, or why it does not. */
async function reading<T>({ options }: Parts, read: () => Promise<T>): Promise<Reply<T>> {
  try {
    return { ok: true, value: await read() };
  } catch (error) {
    options.log.warn({ err: error }, 'store did not answer');
    const known = error instanceof RefusalError ? error.data : undefined;
    return { ok: false, error: known ?? refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }) };
  }
}

/** Not asynchronous: what waits for the reply must not hold the request as it came. */
function say(parts: Parts, given: TurnRequest, observer: Client | undefined): Promise<SayReply> {
  const { taskId, caller } = given;
  // First as it came: what finds no room need not be made smaller.
  if (parts.registry.hasRoom(caller.tenantId, sizeOf(given, false)))
    return sayHeld(parts, held(given), observer);
  return Promise.resolve({ ok: false, taskId, error: noRoom(parts, caller) });
}

async function sayHeld(parts: Parts, request: TurnRequest, observer: Client | undefined): Promise<SayReply> {
  const { options, registry } = parts;
  const { caller, taskId, sessionId } = request;
  const no = (error: ErrorData): SayReply => ({ ok: false, taskId, error });
  if (parts.draining) return no(refusal('DRAINING', { retryAfterMs: 1_000 }));
  const bytes = sizeOf(request, observer !== undefined);
  const arrival = request.arrival ?? parts.arrival();
  const live = request.taskIdGiven ? registry.turn(caller.tenantId, taskId) : undefined;
  if (!live && !registry.hasRoom(caller.tenantId, bytes)) return no(noRoom(parts, caller));
  const ref = parts.sessionOf(caller.tenantId, sessionId, caller.tier, request.ephemeral);
  if (live && live.session !== ref) return no(taskTaken());
  // From here on a cancel finds it, and a drain waits for it; the session takes it off again.
  if (!live) registry.track(ref, taskId, caller.tier ?? options.defaultTier, bytes);
  if (observer) ref.stream.watch(observer);
  const tenant = ref.tenant.address;
  parts.actors.tell(tenant, { type: 'arrived', arrival });
  const reply = await ask<SayReply>(
    parts,
    ref,
    (replyTo) => ({ type: 'said', request, arrival, replyTo, atMs: options.clock.now() }),
    (error, reason) => {
      if (!live && reason === 'full') registry.untrack(ref, taskId);
      return no(error);
    },
  );
  // One that was accepted has been admitted.
  if ((!reply.ok || reply.accepted.deduplicated) && parts.actors.isAlive(tenant))
    parts.actors.tell(tenant, { type: 'departed', arrival });
  if (observer && !reply.ok) ref.stream.detach(observer.id);
  logSaid(options.log, request, reply);
  return reply;
}

/** The turns that wait and run hold as much as they may. */
function noRoom({ options }: Parts, { tier }: Caller): ErrorData {
  options.metrics.turnRefused(tier ?? options.defaultTier, 'OVERLOADED');
  const message = 'Turns that wait hold too much memory already; retry later.';
  return refusal('OVERLOADED', { message, retryAfterMs: 1_000 });
}

async function cancel(parts: Parts, tenantId: TenantId, taskId: TurnRequest['taskId']): Promise<CancelReply> {
  const { options, registry } = parts;
  const no = (error: ErrorData): CancelReply => ({ ok: false, taskId, error });
  const live = registry.turn(tenantId, taskId);
  if (live) {
    const reply = await ask<CancelReply>(
      parts,
      live.session,
      (replyTo) => ({ type: 'cancel', taskId, replyTo, atMs: options.clock.now() }),
      no,
      /** Once the session has its message the run need not wait for the two mailboxes between. */
      () => {
        const { execution } = live.session;
        if (execution?.taskId === taskId) execution.abort.abort();
      },
    );
    if (reply.ok || reply.error.code !== 'NOT_FOUND') return reply;
  }
  const found = await turn(parts, tenantId, taskId);
  return found.ok ? { ok: true, taskId, status: found.value.status, abortMs: 0 } : no(found.error);
}

async function turn(
  parts: Parts,
  tenantId: TenantId,
  taskId: TurnRequest['taskId'],
): Promise<Reply<TurnStanding>> {
  const live = parts.registry.turn(tenantId, taskId);
  if (live) {
    const found = await ask<TurnRecord | null>(
      parts,
      live.session,
      (replyTo) => ({ type: 'inquire', taskId, replyTo }),
      () => null,
    );
    if (found) return { ok: true, value: await standing(parts, live.session, found) };
  }
  const stored = await reading(parts, () => parts.options.store.turn(tenantId, taskId));
  if (!stored.ok) return stored;
  if (stored.value) return { ok: true, value: stored.value };
  return { ok: false, error: refusal('NOT_FOUND', { message: 'There is no such task.' }) };
}

/** What runs for a turn is its execution's to say. */
async function standing(
  { actors }: Parts,
  { execution }: SessionRef,
  record: TurnRecord,
): Promise<TurnStanding> {
  if (execution?.taskId !== record.taskId) return record;
  const tools = await actors
    .ask<ExecutionMessage, readonly RunningTool[]>(execution.address, ANSWER_MS, (replyTo) => ({
      type: 'inquire',
      replyTo,
    }))
    .catch(() => []);
  return { ...record, tools };
}

async function drain(parts: Parts, graceMs: number): Promise<void> {
  const { options, actors, registry } = parts;
  const { clock } = options;
  parts.draining = true;
  for (const ref of registry.sessions()) {
    const reconnectAfterMs = Math.floor(Math.random() * RECONNECT_SPREAD_MS);
    actors.tell(ref.address, { type: 'drain', reconnectAfterMs, atMs: clock.now() });
  }
  if (!(await registry.quiet(graceMs))) {
    for (const ref of registry.sessions())
      actors.tell(ref.address, { type: 'drainExpired', atMs: clock.now() });
    await registry.quiet(CANCEL_GRACE_MS);
  }
  const drained = [...registry.sessions()].map((ref) =>
    ask<null>(
      parts,
      ref,
      (replyTo) => ({ type: 'drained', replyTo }),
      () => null,
    ),
  );
  await Promise.all(drained);
}

const noSession = (): ErrorData => refusal('NOT_FOUND', { message: 'There is no such session.' });

interface SystemOptions extends SessionConfig {
  /** Where other actors of the node live too; made here where it is absent. Closed with the system. */
  readonly actors?: ActorSystem;
  readonly store: Store;
  readonly agents: AgentSource;
  readonly runner: AgentRunner;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly defaultTier: Tier;
  readonly maxExecutions: number;
  readonly deltaWindowMs: number;
  readonly idleMs: number;
}

/**
 * drain(): from now on no new turns; clients are told; resolves when all turns have ended, those cancelled that
 * still ran after `graceMs`; then clients are closed with 1012. close(): stops every actor at once.
 */
export interface System extends Directory {
  /** Sends a notice to every client of its tenant that is attached on this node, at most once. */
  notify(notice: TenantNotice): void;
  /** Those that live on this node. */
  tenants(): Iterable<TenantId>;
  /** An operator set a tenant's tier: it holds from the next message on, over what requests name. */
  tierSet(tenantId: TenantId, tier: Tier): void;
  /**
   * The next place in the order in which turns are heard of (`TurnRequest.arrival`), for who looks something up before
   * it says a turn.
   */
  arrival(): number;
  drain(graceMs: number): Promise<void>;
  close(): Promise<void>;
}
