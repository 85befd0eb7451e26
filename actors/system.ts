/**
 * The actors of a node from outside: the directory that edges speak to. It finds the session a request is for among
 * those that live here, or brings it to life where this node has it or gets it.
 */
import type { TenantNotice } from '../src/domain/agent-record.ts';
import { type ErrorData, RefusalError, type Reply, refusal } from '../src/domain/errors.ts';
import type { SessionId, TenantId } from '../src/domain/ids.ts';
import type { Tier } from '../src/domain/tiers.ts';
import {
  type CancelReply,
  held,
  isEndStatus,
  type SayReply,
  type TurnRequest,
  type TurnStanding,
} from '../src/domain/turn.ts';
import type { Placement } from '../src/ports/cluster.ts';
import type { AgentRunner, AgentSource } from '../src/ports/runner.ts';
import type { Client, Directory } from '../src/ports/sessions.ts';
import type { Store } from '../src/ports/store.ts';
import type { Clock, Log, Metrics } from '../src/ports/telemetry.ts';
import { createSeeking, type Seeking } from './cluster/seeking.ts';
import { createSolePlacement } from './cluster/sole-placement.ts';
import { createExecutionEffects } from './execution/effects.ts';
import { createRegistry, notifyTenant, pushFrame, type Registry } from './registry.ts';
import type { ActorSystem } from './runtime/actor.ts';
import { createActorSystem } from './runtime/actor-system.ts';
import { createActivation } from './session/activation.ts';
import { saidBefore } from './session/admission.ts';
import { createPacer } from './session/delta-pacer.ts';
import { createLocalSessions, type NodeSessions, turnAway } from './session/local-sessions.ts';
import type { SessionConfig } from './session/protocol.ts';
import { createTenants } from './tenant/activation.ts';
import type { SharedLimits } from './tenant/lease-keeper.ts';

/** A client waits so long for a session that another node has, which may be about to be declared dead; a request less. */
const ATTACH_PATIENCE_MS = 10_000;
const PATIENCE_MS = 3_000;
/** Between two looks at a turn that another node runs. */
const LOOK_MS = 500;

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
  const placement = options.placement ?? createSolePlacement();
  const shared = { ...options, actors, registry, placement };
  const activate = createActivation({
    ...shared,
    config: {
      ...{ tiers, models, requestsPerHour, maxIterations, maxTimeMs },
      ...(options.limits ? { sharedTiers: options.limits.tiers } : {}),
    },
    pacer,
    tenantOf: createTenants(shared),
    execute: createExecutionEffects(shared),
  });
  const local = createLocalSessions({ ...shared, activate });
  const seeking = createSeeking({ local, placement });
  placement.listen((event) => {
    if (event.type !== 'wanted') return;
    if (local.has(event.key)) void local.yield(event.key, 'attached here');
    else void placement.release(event.key, event.epoch);
  });
  return {
    ...createDirectory({
      options,
      actors,
      registry,
      local,
      seeking,
      isShared: options.placement !== undefined,
    }),
    local,
    locate: seeking.locate,
    notify: (notice) => notifyTenant(registry, notice, clock.now()),
    tenants: () => registry.tenants.keys(),
    tierSet(tenantId, tier) {
      const live = registry.tenants.get(tenantId);
      if (live) actors.tell(live.address, { type: 'tierSet', tier });
    },
    arrival: local.arrival,
    drain: local.drain,
    async close() {
      seeking.close();
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
  readonly local: NodeSessions;
  readonly seeking: Seeking;
  /** Whether a turn may run on another node. */
  readonly isShared: boolean;
}

function createDirectory(parts: Parts): Directory {
  const { options, actors, registry, local, seeking } = parts;
  const { clock } = options;
  /** Clients whose session is sought. */
  const waiting = new Map<string, Client>();
  return {
    attach(caller, sessionId, client, resume) {
      if (local.attach(caller, sessionId, client, resume)) return;
      const { tenantId, tier } = caller;
      const coming = seeking.bring({ tenantId, sessionId }, { tier }, ATTACH_PATIENCE_MS);
      if (!coming) return void local.attach(caller, sessionId, client, resume);
      waiting.set(client.id, client);
      coming
        .then(() => (local.has({ tenantId, sessionId }) ? undefined : Promise.reject(justLeft())))
        .then(
          () => waiting.delete(client.id) && local.attach(caller, sessionId, client, resume),
          (error: unknown) =>
            waiting.delete(client.id) && turnAway(client, refusedBy(parts, error), clock.now()),
        );
    },
    detach(tenantId, sessionId, clientId) {
      if (!waiting.delete(clientId)) local.detach({ tenantId, sessionId }, clientId);
    },
    say: (request, observer) => local.say(request, observer) ?? sayFirst(parts, request, observer),
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
        draining: local.isDraining(),
        actors: actors.stats(),
        ...(agents ? { agents } : {}),
      };
    },
  };
}

/** A turn of a session that does not live here yet. Nothing comes to life for one that can not be taken. */
function sayFirst(
  { local, seeking, ...parts }: Parts,
  request: TurnRequest,
  observer: Client | undefined,
): Promise<SayReply> {
  const { caller, sessionId, taskId, ephemeral = false } = request;
  const no = (error: ErrorData): SayReply => ({ ok: false, taskId, error });
  const full = local.isDraining() ? refusal('DRAINING', { retryAfterMs: 1_000 }) : local.noRoom(request);
  if (full) return Promise.resolve(no(full));
  const key = { tenantId: caller.tenantId, sessionId };
  const coming = seeking.bring(key, { tier: caller.tier, ephemeral }, PATIENCE_MS);
  if (!coming) return local.say(request, observer) ?? Promise.resolve(no(justLeft().data));
  const waiting = { ...held(request), arrival: request.arrival ?? local.arrival() };
  return coming.then(
    () => local.say(waiting, observer) ?? no(justLeft().data),
    (error: unknown) => saidElsewhere({ ...parts, local, seeking }, request, refusedBy(parts, error)),
  );
}

/** Another node has the session. A turn that it has been told before is known from its row, and nothing is said anew. */
async function saidElsewhere(
  parts: Parts,
  { caller, sessionId, taskId, taskIdGiven }: TurnRequest,
  error: ErrorData,
): Promise<SayReply> {
  if (!taskIdGiven || error.code !== 'TRANSPORT_UNAVAILABLE') return { ok: false, taskId, error };
  const known = await reading(parts, () => parts.options.store.turn(caller.tenantId, taskId));
  return known.ok && known.value?.sessionId === sessionId
    ? { ok: true, taskId, accepted: saidBefore(known.value.status) }
    : { ok: false, taskId, error };
}

/** What came to life for a request has left by the time that it is handled. */
const justLeft = (): RefusalError =>
  new RefusalError(
    refusal('BUSY', { message: 'The session was just closed; try again.', retryAfterMs: 100 }),
  );

async function forget(parts: Parts, tenantId: TenantId, sessionId: SessionId): Promise<Reply<null>> {
  const { options, registry, local, seeking } = parts;
  const stored = await reading(parts, () =>
    options.store.session(tenantId, sessionId, { limit: 1, before: undefined }),
  );
  if (!stored.ok) return stored;
  if (!stored.value && !registry.session(tenantId, sessionId)) return { ok: false, error: noSession() };
  const key = { tenantId, sessionId };
  try {
    await seeking.bring(key, { tier: undefined }, PATIENCE_MS);
  } catch (error) {
    return { ok: false, error: refusedBy(parts, error) };
  }
  return local.forget(key) ?? { ok: false, error: justLeft().data };
}

/** What the store answers, or why it does not. */
async function reading<T>(parts: Parts, read: () => Promise<T>): Promise<Reply<T>> {
  try {
    return { ok: true, value: await read() };
  } catch (error) {
    return { ok: false, error: refusedBy(parts, error) };
  }
}

function refusedBy({ options }: Pick<Parts, 'options'>, error: unknown): ErrorData {
  if (!(error instanceof RefusalError) || error.data.code === 'STORE_UNAVAILABLE')
    options.log.warn({ err: error }, 'store did not answer');
  return error instanceof RefusalError ? error.data : refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 });
}

async function cancel(parts: Parts, tenantId: TenantId, taskId: TurnRequest['taskId']): Promise<CancelReply> {
  const no = (error: ErrorData): CancelReply => ({ ok: false, taskId, error });
  const reply = await parts.local.cancel(tenantId, taskId);
  if (reply && (reply.ok || reply.error.code !== 'NOT_FOUND')) return reply;
  const untilMs = performance.now() + PATIENCE_MS;
  for (;;) {
    const found = await turn(parts, tenantId, taskId);
    if (!found.ok) return no(found.error);
    const { status } = found.value;
    if (!parts.isShared || isEndStatus(status)) return { ok: true, taskId, status, abortMs: 0 };
    // Another node runs it. Where that is gone the turn will have ended by itself.
    if (performance.now() > untilMs) return no(runsElsewhere());
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

const runsElsewhere = (): ErrorData =>
  refusal('TRANSPORT_UNAVAILABLE', {
    message: 'Another node runs this task, and can not be reached from here; try again.',
    retryAfterMs: 1_000,
  });

async function turn(
  parts: Parts,
  tenantId: TenantId,
  taskId: TurnRequest['taskId'],
): Promise<Reply<TurnStanding>> {
  const live = await parts.local.inquire(tenantId, taskId);
  if (live) return { ok: true, value: live };
  const stored = await reading(parts, () => parts.options.store.turn(tenantId, taskId));
  if (!stored.ok) return stored;
  if (stored.value) return { ok: true, value: stored.value };
  return { ok: false, error: refusal('NOT_FOUND', { message: 'There is no such task.' }) };
}

const noSession = (): ErrorData => refusal('NOT_FOUND', { message: 'There is no such session.' });

interface SystemOptions extends SessionConfig {
  /** Where other actors of the node live too; made here where it is absent. Closed with the system. */
  readonly actors?: ActorSystem;
  readonly store: Store;
  /** Which node has a session; absent: this one has all of them. */
  readonly placement?: Placement;
  /** False while another node may have taken over what this one has. */
  readonly mayAct?: () => boolean;
  readonly agents: AgentSource;
  readonly runner: AgentRunner;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly defaultTier: Tier;
  readonly maxExecutions: number;
  readonly deltaWindowMs: number;
  readonly idleMs: number;
  /** Limits that hold over all nodes; absent: the node has its tenants to itself. */
  readonly limits?: SharedLimits | undefined;
}

/** drain(): as NodeSessions. close(): stops every actor at once. */
export interface System extends Directory {
  /** For what other nodes ask of this one. */
  readonly local: NodeSessions;
  readonly locate: Seeking['locate'];
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
