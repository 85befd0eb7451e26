/** What the actors decided is done here: each effect is data, carried out in one switch, and reports as a message. */
import { CLOSE, refusal } from '../../src/domain/errors.ts';
import type { TaskId } from '../../src/domain/ids.ts';
import { dayOf } from '../../src/domain/rate-limit.ts';
import type { SayReply, TurnRecord, TurnRequest } from '../../src/domain/turn.ts';
import type { AgentSource } from '../../src/ports/runner.ts';
import type { Store } from '../../src/ports/store.ts';
import type { Clock, Log, Metrics } from '../../src/ports/telemetry.ts';
import { createExecutionEffects, type ExecutionDeps } from '../execution/effects.ts';
import { closeClients, type Registry, type SessionRef, type TenantRef } from '../registry.ts';
import { type ActorSystem, type Address, unreachable } from '../runtime/actor.ts';
import type { TenantEffect } from '../tenant/protocol.ts';
import type { SchedulerEffect, SchedulerMessage } from '../tenant/scheduler.ts';
import { unnumbered } from './event-stream.ts';
import type { SessionEffect, SessionMessage } from './protocol.ts';
import { returned } from './recovery.ts';
import { taskTaken } from './turn.ts';

export interface EffectDeps extends ExecutionDeps {
  readonly registry: Registry;
  readonly store: Store;
  readonly agents: AgentSource;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly node: () => Address<SchedulerMessage>;
}

export interface Effects {
  node(effect: SchedulerEffect, self: Address<SchedulerMessage>): void;
  tenant(ref: TenantRef, effect: TenantEffect): void;
  session(ref: SessionRef, effect: SessionEffect): void;
}

/** Messages of a session's history that are loaded when it is activated; the largest tier gives the model 100. */
const LOADED_MESSAGES = 100;

export function createEffects(deps: EffectDeps): Effects {
  const { actors, registry, store, agents, clock, metrics, log } = deps;
  const execute = createExecutionEffects(deps);
  const keep = createKeeping(deps);

  agents.onChange?.((tenantId, agent) => {
    for (const session of registry.busy(tenantId)) tellSession(session, { type: 'agentChanged', agent });
  });

  const tellSession = (ref: SessionRef, message: SessionMessage): void =>
    void actors.tell(ref.address, message);

  function node(effect: SchedulerEffect, self: Address<SchedulerMessage>): void {
    switch (effect.type) {
      case 'grant': {
        const { tenantId, tenancy, sessionId, taskId, attempt } = effect;
        const tenant = registry.tenants.get(tenantId);
        // What a tenant that has stopped had here went back with it.
        if (tenant?.tenancy !== tenancy) return;
        const session = registry.session(tenantId, sessionId);
        if (session) return tellSession(session, { type: 'granted', taskId, attempt, atMs: clock.now() });
        actors.tell(tenant.address, { type: 'release', taskId, attempt, slot: 'granted', refund: false });
        return;
      }
      case 'tickSoon':
        setImmediate(() => actors.tell(self, { type: 'tick' }));
        return;
      default:
        return unreachable(effect);
    }
  }

  function tenant(ref: TenantRef, effect: TenantEffect): void {
    const { tenantId, address } = ref;
    switch (effect.type) {
      case 'loadTenant':
        attempt(() => store.tenant(tenantId, dayOf(clock.now()))).then(
          (record) => actors.tell(address, { type: 'loaded', record }),
          (error: unknown) => {
            log.warn({ err: error, tenant_id: tenantId }, 'tenant could not be loaded');
            actors.tell(address, { type: 'loadFailed', atMs: clock.now() });
          },
        );
        return;
      case 'tellSession': {
        const session = registry.session(tenantId, effect.sessionId);
        if (session) return tellSession(session, effect.message);
        const release = returned(effect.message);
        if (release) actors.tell(address, release);
        return;
      }
      case 'tellAllSessions':
        for (const session of ref.sessions) tellSession(session, effect.message);
        return;
      case 'want': {
        actors.tell(deps.node(), { ...effect, tenantId, tenancy: ref.tenancy });
        return;
      }
      case 'done':
        actors.tell(deps.node(), { type: 'done' });
        return;
      case 'announceLater':
        setTimeout(() => {
          if (actors.isAlive(address)) actors.tell(address, { type: 'announce', atMs: clock.now() });
        }, effect.afterMs).unref();
        return;
      case 'leaveNode':
        if (ref.sessions.size === 0) actors.passivate(address);
        return;
      default:
        return unreachable(effect);
    }
  }

  /** A deed that throws is a bug and crashes the session; whoever waits for what it would bring is told. */
  function session(ref: SessionRef, effect: SessionEffect): void {
    try {
      perform(ref, effect);
    } catch (error) {
      const lost = lostOf(effect, clock.now());
      if (lost) tellSession(ref, lost);
      throw error;
    }
  }

  function perform(ref: SessionRef, effect: SessionEffect): void {
    const { tenantId, address: tenantAddress } = ref.tenant;
    const { sessionId, stream: outbox } = ref;
    switch (effect.type) {
      case 'load':
        attempt(() => store.session(tenantId, sessionId, { limit: LOADED_MESSAGES, before: undefined })).then(
          (page) =>
            tellSession(ref, {
              type: 'loaded',
              history: page?.messages ?? [],
              interrupted: page?.interrupted ?? [],
            }),
          (error: unknown) => {
            log.warn(
              { err: error, tenant_id: tenantId, session_id: sessionId },
              'session could not be loaded',
            );
            tellSession(ref, { type: 'loadFailed', atMs: clock.now() });
          },
        );
        return;
      case 'enter':
        actors.tell(tenantAddress, { type: 'enter', sessionId, tier: effect.tier, atMs: clock.now() });
        return;
      case 'findAgent':
        return findAgent(ref, effect);
      case 'claim': {
        const { taskId, attempt, slot, tier, atMs } = effect;
        // Offered, not told: a flood of claims must leave the tenant room for what comes back.
        const claim = { type: 'claim', sessionId, taskId, attempt, slot, tier, atMs } as const;
        if (actors.offer(tenantAddress, claim) === 'delivered') return;
        const error = refusal('OVERLOADED', { retryAfterMs: 1_000 });
        return tellSession(ref, { type: 'claimRefused', taskId, attempt, error, atMs });
      }
      case 'acquire':
        actors.tell(tenantAddress, { ...effect, sessionId, atMs: clock.now() });
        return;
      case 'release':
        actors.tell(tenantAddress, effect);
        return;
      case 'keep':
        return keep(ref, effect);
      case 'execute':
        return execute(ref, effect);
      case 'abort': {
        const run = ref.execution;
        if (run?.taskId !== effect.taskId) return;
        // Here and now: what comes next in this tick may set free what the run waits for.
        run.abort.abort();
        actors.tell(run.address, { type: 'cancel' });
        return;
      }
      case 'event':
        return outbox.event(effect.taskId, effect.event, effect.atMs);
      case 'discard':
        return outbox.discard(effect.taskId);
      case 'reply':
        return actors.reply(effect.replyTo, effect.value);
      case 'attachClient': {
        const client = ref.arriving.get(effect.clientId);
        ref.arriving.delete(effect.clientId);
        if (client) outbox.attach(client, effect.ready);
        return;
      }
      case 'detachClient':
        return outbox.detach(effect.clientId);
      case 'turnAway': {
        const client = ref.arriving.get(effect.clientId);
        ref.arriving.delete(effect.clientId);
        client?.send(unnumbered({ type: 'error', data: effect.error }, effect.atMs));
        return client?.close(CLOSE.overloaded);
      }
      case 'notice':
        for (const client of ref.arriving.values()) client.send(unnumbered(effect.notice, effect.atMs));
        return outbox.notice(effect.notice, effect.atMs);
      case 'closeClients':
        return closeClients(ref, effect.close, effect.told);
      case 'track':
        return registry.track(ref, effect.taskId, effect.tier);
      case 'untrack':
        return registry.untrack(ref, effect.taskId);
      case 'measure': {
        const { status, info } = effect.turn;
        if (status !== 'queued' && status !== 'processing') metrics.turnEnded(effect.tier, status, info);
        return logEnd(log, effect.turn);
      }
      case 'refused':
        return metrics.turnRefused(effect.tier, effect.code);
      case 'leave':
        actors.passivate(ref.address);
        return;
      case 'stop':
        return actors.stop(ref.address);
      default:
        return unreachable(effect);
    }
  }

  function findAgent(
    ref: SessionRef,
    { taskId, attempt, agentId, agentVersion }: Extract<SessionEffect, { type: 'findAgent' }>,
  ): void {
    agents.agent(ref.tenant.tenantId, agentId, agentVersion).then(
      (found) =>
        tellSession(
          ref,
          found.ok
            ? { type: 'agentFound', taskId, attempt, agent: found.value, atMs: clock.now() }
            : { type: 'agentRefused', taskId, attempt, error: found.error, atMs: clock.now() },
        ),
      (error: unknown) => {
        log.warn({ err: error, agent_id: agentId }, 'agent could not be found');
        tellSession(ref, {
          type: 'agentRefused',
          attempt,
          taskId,
          error: refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }),
          atMs: clock.now(),
        });
      },
    );
  }

  return { node, tenant, session };
}

/** What a deed would have ended in had it failed on its way instead of at once. */
function lostOf(effect: SessionEffect, atMs: number): SessionMessage | null {
  switch (effect.type) {
    case 'keep':
      return { type: 'keepFailed', step: effect.step, taskId: effect.taskId, atMs };
    case 'findAgent':
      return {
        type: 'agentRefused',
        taskId: effect.taskId,
        attempt: effect.attempt,
        error: refusal('INTERNAL'),
        atMs,
      };
    case 'claim':
      return {
        type: 'claimRefused',
        taskId: effect.taskId,
        attempt: effect.attempt,
        error: refusal('INTERNAL'),
        atMs,
      };
    case 'execute':
      return { type: 'executionLost', taskId: effect.plan.taskId, text: '', atMs };
    default:
      return null;
  }
}

/** A call that throws where it should reject. */
async function attempt<T>(call: () => Promise<T>): Promise<T> {
  return call();
}

export interface KeepingDeps {
  readonly actors: ActorSystem;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
}

type Keep = Extract<SessionEffect, { type: 'keep' }>;

/** Returns what carries out a `keep`: exactly one `kept` or `keepFailed` comes back for it. */
export function createKeeping({
  actors,
  store,
  clock,
  log,
}: KeepingDeps): (ref: SessionRef, effect: Keep) => void {
  const tell = (ref: SessionRef, message: SessionMessage): void => void actors.tell(ref.address, message);

  function keep(ref: SessionRef, { step, taskId, write, wait }: Keep): void {
    if (!wait) {
      // The tier wants speed before certainty: the session goes on as if it were kept.
      store
        .commit(write)
        .catch((error: unknown) => log.warn({ err: error, step, task_id: taskId }, 'a write was lost'));
      return tell(ref, { type: 'kept', step, taskId, duplicate: false, atMs: clock.now() });
    }
    const failed = (error: unknown): void => {
      log.warn({ err: error, step, task_id: taskId }, 'store refused a write');
      tell(ref, { type: 'keepFailed', step, taskId, atMs: clock.now() });
    };
    store.commit(write).then((outcome) => {
      if (outcome === 'duplicate' && step === 'accepted' && taskId) tellDuplicate(ref, taskId).catch(failed);
      else tell(ref, { type: 'kept', step, taskId, duplicate: false, atMs: clock.now() });
    }, failed);
  }

  /** A resend is told of its turn only where that is a turn of the same session: its end will be heard there. */
  async function tellDuplicate(ref: SessionRef, taskId: TaskId): Promise<void> {
    const kept = await store.turn(ref.tenant.tenantId, taskId);
    const atMs = clock.now();
    if (kept && kept.sessionId !== ref.sessionId) {
      const error = taskTaken();
      tell(ref, { type: 'keepFailed', step: 'accepted', taskId, error, atMs });
    } else tell(ref, { type: 'kept', step: 'accepted', taskId, duplicate: true, atMs });
  }

  return keep;
}

/** Ties a request to its turn. */
export function logSaid(log: Log, request: TurnRequest, reply: SayReply): void {
  const ids = {
    tenant_id: request.caller.tenantId,
    session_id: request.sessionId,
    task_id: request.taskId,
    request_id: request.requestId,
  };
  if (reply.ok) log.debug(ids, 'turn accepted');
  else log.debug({ ...ids, code: reply.error.code }, 'turn refused');
}

/** At info only what went wrong: thousands of turns a second end well. */
export function logEnd(log: Log, { tenantId, sessionId, taskId, status, error }: TurnRecord): void {
  const ids = { tenant_id: tenantId, session_id: sessionId, task_id: taskId, status };
  if (error) log.info({ ...ids, code: error.code }, 'turn failed');
  else log.debug(ids, 'turn ended');
}
