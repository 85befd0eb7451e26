/** What the actors decided is done here: each effect is data, carried out in one switch, and reports as a message. */
import { refusal } from '../src/domain/errors.ts';
import type { AgentId, TaskId } from '../src/domain/ids.ts';
import { dayOf } from '../src/domain/rate-limit.ts';
import type { AgentRunner, AgentSource, Clock, ExecutionEvent, Log, Metrics, Store } from '../src/ports.ts';
import type { ActorKind, ActorSystem, Address } from './actor.ts';
import type { ExecutionEffect, ExecutionMessage, ExecutionState } from './execution.ts';
import { newExecution } from './execution.ts';
import type { NodeEffect, NodeMessage } from './node.ts';
import type { ExecutionRef, Registry, SessionRef, TenantRef } from './registry.ts';
import { type SessionEffect, type SessionMessage, unreachable } from './session-state.ts';
import type { TenantEffect } from './tenant.ts';

export interface EffectDeps {
  readonly actors: ActorSystem;
  readonly registry: Registry;
  readonly store: Store;
  readonly agents: AgentSource;
  readonly runner: AgentRunner;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly node: () => Address<NodeMessage>;
  readonly execution: ActorKind<ExecutionState, ExecutionMessage, ExecutionEffect>;
}

export interface Effects {
  node(effect: NodeEffect, self: Address<NodeMessage>): void;
  tenant(ref: TenantRef, effect: TenantEffect): void;
  session(ref: SessionRef, effect: SessionEffect): void;
}

/** Messages of a session's history that are loaded when it is activated; the largest tier gives the model 100. */
const LOADED_MESSAGES = 100;

export function createEffects(deps: EffectDeps): Effects {
  const { actors, registry, store, agents, runner, clock, metrics, log } = deps;

  const tellSession = (ref: SessionRef, message: SessionMessage): void =>
    void actors.tell(ref.address, message);

  function node(effect: NodeEffect, self: Address<NodeMessage>): void {
    switch (effect.type) {
      case 'grant': {
        const { tenantId, sessionId, taskId } = effect;
        const session = registry.session(tenantId, sessionId);
        if (session) return tellSession(session, { type: 'granted', taskId, atMs: clock.now() });
        // The session is gone: nobody else will give its grant back.
        const tenant = registry.tenants.get(tenantId);
        if (tenant) actors.tell(tenant.address, { type: 'release', taskId, slot: 'granted', refund: false });
        else actors.tell(self, { type: 'done' });
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
        store.tenant(tenantId, dayOf(clock.now())).then(
          (record) => actors.tell(address, { type: 'loaded', record }),
          (error: unknown) => {
            log.warn({ err: error, tenant_id: tenantId }, 'tenant could not be loaded');
            actors.tell(address, { type: 'loadFailed', atMs: clock.now() });
          },
        );
        return;
      case 'tellSession': {
        const session = registry.session(tenantId, effect.sessionId);
        if (session) tellSession(session, effect.message);
        return;
      }
      case 'tellAllSessions':
        for (const session of ref.sessions) tellSession(session, effect.message);
        return;
      case 'want': {
        const { sessionId, taskId, weight } = effect;
        actors.tell(deps.node(), { type: 'want', tenantId, sessionId, taskId, weight });
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

  function session(ref: SessionRef, effect: SessionEffect): void {
    const { tenantId, address: tenantAddress } = ref.tenant;
    const { sessionId, outbox } = ref;
    switch (effect.type) {
      case 'load':
        store.session(tenantId, sessionId, { limit: LOADED_MESSAGES, before: undefined }).then(
          (page) => tellSession(ref, { type: 'loaded', history: page?.messages ?? [] }),
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
        actors.tell(tenantAddress, { type: 'enter', sessionId, tier: effect.tier });
        return;
      case 'findAgent':
        return findAgent(ref, effect.taskId, effect.agentId);
      case 'claim': {
        const { taskId, slot, tier, atMs } = effect;
        actors.tell(tenantAddress, { type: 'claim', sessionId, taskId, slot, tier, atMs });
        return;
      }
      case 'acquire':
        actors.tell(tenantAddress, { type: 'acquire', sessionId, taskId: effect.taskId, atMs: clock.now() });
        return;
      case 'release': {
        const { taskId, slot, refund } = effect;
        actors.tell(tenantAddress, { type: 'release', taskId, slot, refund });
        return;
      }
      case 'keep':
        return keep(ref, effect);
      case 'execute':
        return execute(ref, effect);
      case 'abort':
        if (ref.execution?.taskId === effect.taskId) actors.tell(ref.execution.address, { type: 'cancel' });
        return;
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
      case 'notice':
        for (const client of ref.arriving.values()) outbox.watch(client);
        return outbox.notice(effect.notice, effect.atMs);
      case 'closeClients':
        for (const client of ref.arriving.values()) client.close(effect.close);
        return outbox.close(effect.close);
      case 'track':
        return registry.track(ref, effect.taskId, effect.tier);
      case 'untrack':
        return registry.untrack(ref, effect.taskId);
      case 'measure': {
        const { status, info } = effect.turn;
        if (status !== 'queued' && status !== 'processing') metrics.turnEnded(effect.tier, status, info);
        return;
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

  function execution(ref: SessionRef, run: ExecutionRef, effect: ExecutionEffect): void {
    switch (effect.type) {
      case 'run':
        return start(ref, run, effect);
      case 'abortRun':
        return run.abort.abort();
      case 'countTool':
        return metrics.toolUsed(effect.tool, effect.ok);
      case 'report': {
        const { taskId, outcome, atMs } = effect;
        if (ref.execution === run) ref.execution = null;
        return tellSession(ref, { type: 'ended', taskId, outcome, text: ref.outbox.seal(taskId), atMs });
      }
      case 'stopExecution':
        return actors.stop(run.address);
      default:
        return unreachable(effect);
    }
  }

  function findAgent(ref: SessionRef, taskId: TaskId, agentId: AgentId): void {
    agents.agent(ref.tenant.tenantId, agentId).then(
      (found) =>
        tellSession(
          ref,
          found.ok
            ? { type: 'agentFound', taskId, agent: found.value, atMs: clock.now() }
            : { type: 'agentRefused', taskId, error: found.error },
        ),
      (error: unknown) => {
        log.warn({ err: error, agent_id: agentId }, 'agent could not be found');
        tellSession(ref, {
          type: 'agentRefused',
          taskId,
          error: refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }),
        });
      },
    );
  }

  function keep(ref: SessionRef, { step, taskId, write }: Extract<SessionEffect, { type: 'keep' }>): void {
    store.commit(write).then(
      (outcome) =>
        tellSession(ref, {
          type: 'kept',
          step,
          taskId,
          duplicate: outcome === 'duplicate',
          atMs: clock.now(),
        }),
      (error: unknown) => {
        log.warn({ err: error, step, task_id: taskId }, 'store refused a write');
        tellSession(ref, { type: 'keepFailed', step, taskId, atMs: clock.now() });
      },
    );
  }

  /** An execution is its session's child: it stops with it, and its end is reported whatever ends it. */
  function execute(ref: SessionRef, { plan, options }: Extract<SessionEffect, { type: 'execute' }>): void {
    const abort = new AbortController();
    const address = actors.spawn(ref.address, deps.execution, {
      name: plan.taskId,
      initial: newExecution(plan, options),
      interpret: (effect: ExecutionEffect) => execution(ref, run, effect),
    });
    const run: ExecutionRef = { taskId: plan.taskId, tier: plan.tier, address, abort };
    ref.execution = run;
    actors.tell(address, { type: 'start' });
  }

  /** The run goes on beside the mailbox; what it writes goes past it, what it has done comes as messages. */
  function start(
    ref: SessionRef,
    run: ExecutionRef,
    { plan, options }: Extract<ExecutionEffect, { type: 'run' }>,
  ): void {
    const sink = ref.outbox.turn(plan.taskId, options);
    const emit = (event: ExecutionEvent): void => {
      sink.emit(event);
      if (event.type === 'tool.started')
        actors.tell(run.address, { type: 'toolStarted', callId: event.data.call_id, tool: event.data.tool });
      if (event.type === 'tool.finished')
        actors.tell(run.address, {
          type: 'toolFinished',
          callId: event.data.call_id,
          tool: event.data.tool,
          ok: event.data.ok,
        });
    };
    runner.run(plan, { signal: run.abort.signal, emit, accepted: sink.accepted }).then(
      (outcome) => actors.tell(run.address, { type: 'finished', outcome, atMs: clock.now() }),
      (error: unknown) => actors.tell(run.address, { type: 'broke', error: asError(error) }),
    );
  }

  return { node, tenant, session };
}

const asError = (thrown: unknown): Error => (thrown instanceof Error ? thrown : new Error(String(thrown)));
