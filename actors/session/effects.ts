/** Performs what sessions decide: each effect is data, performed in one switch, and reports as a message. */
import { CLOSE, type Reply, refusal } from '../../src/domain/errors.ts';
import type { TaskId } from '../../src/domain/ids.ts';
import { msToMidnight } from '../../src/domain/rate-limit.ts';
import {
  isEndStatus,
  type SayReply,
  type TurnRecord,
  type TurnRequest,
  type TurnStatus,
} from '../../src/domain/turn.ts';
import type { AgentSource } from '../../src/ports/runner.ts';
import type { Store } from '../../src/ports/store.ts';
import type { Clock, Log, Metrics } from '../../src/ports/telemetry.ts';
import { closeClients, type Registry, type SessionRef } from '../registry.ts';
import { type ActorSystem, unreachable } from '../runtime/actor.ts';
import { taskTaken } from './ending.ts';
import { unnumbered } from './event-stream.ts';
import type { SessionEffect, SessionMessage } from './protocol.ts';

type EffectOf<T extends SessionEffect['type']> = Extract<SessionEffect, { type: T }>;

export interface SessionEffectDeps {
  readonly actors: ActorSystem;
  readonly registry: Registry;
  readonly store: Store;
  readonly agents: AgentSource;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
  /** Starts the execution of a turn. */
  readonly execute: (ref: SessionRef, effect: EffectOf<'execute'>) => void;
}

/** Messages of a session's history that are loaded when it is activated; the largest tier gives the model 100. */
const LOADED_MESSAGES = 100;
/** After this long a task whose session was deleted meanwhile may be said again. */
const GONE_RETRY_MS = 100;

/** Whose effects they are. Empty only until the actor has its address. */
export interface SessionOf {
  ref: SessionRef | undefined;
}

/** Returns what makes, for a session, what performs its effects. */
export function createSessionEffects(
  deps: SessionEffectDeps,
): (session: SessionOf) => (effect: SessionEffect) => void {
  const { actors, registry, clock, metrics, log } = deps;
  const store = createStoring(deps);
  const lookUps = createLookUps(deps);
  const tell = (ref: SessionRef, message: SessionMessage): void => void actors.tell(ref.address, message);

  deps.agents.onChange?.((tenantId, agentId) => {
    for (const session of registry.busy(tenantId)) tell(session, { type: 'agentChanged', agentId });
  });

  /** An effect that throws is a bug and crashes the session; whoever waits for what it would bring is told. */
  return (session) =>
    function perform(effect) {
      const { ref } = session;
      if (!ref) throw new Error('The session has no address yet.');
      try {
        performOne(ref, effect);
      } catch (error) {
        const lost = lostOf(effect, clock.now());
        if (lost) tell(ref, lost);
        throw error;
      }
    };

  function performOne(ref: SessionRef, effect: SessionEffect): void {
    const { stream } = ref;
    switch (effect.type) {
      case 'load':
        return void lookUps.load(ref);
      case 'findAgent':
        return void lookUps.findAgent(ref, effect);
      case 'join':
      case 'requestAdmission':
      case 'requestSlot':
      case 'release':
        return tellTenant(ref, effect);
      case 'store':
        return store(ref, effect);
      case 'execute':
        return deps.execute(ref, effect);
      case 'abort':
        return abort(ref, effect.taskId);
      case 'event':
        return stream.event(effect.taskId, effect.event, effect.atMs);
      case 'discard':
        return stream.discard(effect.taskId);
      case 'reply':
        return actors.reply(effect.replyTo, effect.value);
      case 'attachClient':
      case 'detachClient':
      case 'turnAway':
      case 'notice':
      case 'closeClients':
        return serveClients(ref, effect);
      case 'track':
        return registry.track(ref, effect.taskId, effect.tier);
      case 'untrack':
        return registry.untrack(ref, effect.taskId);
      case 'measure': {
        const { status, info } = effect.turn;
        if (isEndStatus(status)) metrics.turnEnded(effect.tier, status, info);
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

  function tellTenant(
    ref: SessionRef,
    effect: EffectOf<'join' | 'requestAdmission' | 'requestSlot' | 'release'>,
  ): void {
    const { sessionId } = ref;
    const { address } = ref.tenant;
    switch (effect.type) {
      case 'join':
        return void actors.tell(address, { ...effect, sessionId, atMs: clock.now() });
      case 'requestAdmission': {
        // Offered, not told: a flood of requests must leave the tenant room for what comes back.
        if (actors.offer(address, { ...effect, sessionId }) === 'delivered') return;
        const { taskId, attempt, atMs } = effect;
        const error = refusal('OVERLOADED', { retryAfterMs: 1_000 });
        return tell(ref, { type: 'notAdmitted', taskId, attempt, error, atMs });
      }
      case 'requestSlot':
        return void actors.tell(address, { ...effect, sessionId });
      case 'release':
        return void actors.tell(address, effect);
    }
  }

  /** Here and now: what comes next in this tick may set free what the run waits for. */
  function abort({ execution }: SessionRef, taskId: TaskId): void {
    if (execution?.taskId !== taskId) return;
    execution.abort.abort();
    actors.tell(execution.address, { type: 'cancel' });
  }
}

/** What clients are sent beside the events of turns; those that are arriving are not in the stream yet. */
function serveClients(
  ref: SessionRef,
  effect: EffectOf<'attachClient' | 'detachClient' | 'turnAway' | 'notice' | 'closeClients'>,
): void {
  const { stream, arriving } = ref;
  switch (effect.type) {
    case 'attachClient': {
      const client = arriving.get(effect.clientId);
      arriving.delete(effect.clientId);
      if (client) stream.attach(client, effect.ready);
      return;
    }
    case 'detachClient':
      return stream.detach(effect.clientId);
    case 'turnAway': {
      const client = arriving.get(effect.clientId);
      arriving.delete(effect.clientId);
      client?.send(unnumbered({ type: 'error', data: effect.error }, effect.atMs));
      return client?.close(CLOSE.overloaded);
    }
    case 'notice':
      for (const client of arriving.values()) client.send(unnumbered(effect.notice, effect.atMs));
      return stream.notice(effect.notice, effect.atMs);
    case 'closeClients':
      return closeClients(ref, effect.close, effect.told);
  }
}

/** What an effect would have ended in had it failed on its way instead of at once. */
function lostOf(effect: SessionEffect, atMs: number): SessionMessage | null {
  const error = refusal('INTERNAL');
  switch (effect.type) {
    case 'store':
      return { type: 'storeFailed', step: effect.step, taskId: effect.taskId, atMs };
    case 'findAgent':
      return { type: 'agentRefused', taskId: effect.taskId, attempt: effect.attempt, error, atMs };
    case 'requestAdmission':
      return { type: 'notAdmitted', taskId: effect.taskId, attempt: effect.attempt, error, atMs };
    case 'execute':
      return { type: 'executionLost', taskId: effect.plan.taskId, text: '', atMs };
    default:
      return null;
  }
}

/** What a session asks store and agents for: each call brings exactly one message. */
function createLookUps({
  actors,
  store,
  agents,
  clock,
  log,
}: Pick<SessionEffectDeps, 'actors' | 'store' | 'agents' | 'clock' | 'log'>) {
  return {
    async load({ tenant, sessionId, address }: SessionRef): Promise<void> {
      const { tenantId } = tenant;
      try {
        const page = await store.session(tenantId, sessionId, { limit: LOADED_MESSAGES, before: undefined });
        const { messages: history = [], interrupted = [] } = page ?? {};
        actors.tell(address, { type: 'loaded', history, interrupted });
      } catch (error) {
        log.warn({ err: error, tenant_id: tenantId, session_id: sessionId }, 'session could not be loaded');
        actors.tell(address, { type: 'loadFailed', atMs: clock.now() });
      }
    },
    async findAgent(
      { tenant, address }: SessionRef,
      { taskId, attempt, agentId, agentVersion }: EffectOf<'findAgent'>,
    ): Promise<void> {
      const answer = { taskId, attempt };
      try {
        const found = await agents.agent(tenant.tenantId, agentId, agentVersion);
        const atMs = clock.now();
        if (found.ok) actors.tell(address, { type: 'agentFound', ...answer, agent: found.value, atMs });
        else actors.tell(address, { type: 'agentRefused', ...answer, error: found.error, atMs });
      } catch (error) {
        log.warn({ err: error, agent_id: agentId }, 'agent could not be found');
        const refused = refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 });
        actors.tell(address, { type: 'agentRefused', ...answer, error: refused, atMs: clock.now() });
      }
    },
  };
}

/** Returns what performs a `store` effect: exactly one `stored` or `storeFailed` comes back for it. */
function createStoring({
  actors,
  store,
  clock,
  log,
}: Pick<SessionEffectDeps, 'actors' | 'store' | 'clock' | 'log'>): (
  ref: SessionRef,
  effect: EffectOf<'store'>,
) => void {
  async function report(
    ref: SessionRef,
    { step, taskId, write }: EffectOf<'store'>,
    committed: ReturnType<Store['commit']>,
  ): Promise<void> {
    try {
      const outcome = await committed;
      if (outcome === 'fenced') return fenced(ref, step, taskId);
      const isDuplicate = outcome === 'duplicate' && step === 'accepted' && taskId;
      const before = isDuplicate ? await turnBefore(ref, taskId) : undefined;
      const atMs = clock.now();
      if (outcome === 'over' && write.type === 'turn-accepted') {
        const { day, most = 0 } = write;
        actors.tell(ref.tenant.address, { type: 'daySpent', day, most, atMs });
        const error = refusal('QUOTA_EXCEEDED', { retryAfterMs: msToMidnight(atMs) });
        actors.tell(ref.address, { type: 'storeFailed', step, taskId, error, atMs });
      } else if (before && !before.ok)
        actors.tell(ref.address, { type: 'storeFailed', step, taskId, error: before.error, atMs });
      else actors.tell(ref.address, { type: 'stored', step, taskId, duplicate: before?.value, atMs });
    } catch (error) {
      log.warn({ err: error, step, task_id: taskId }, 'store refused a write');
      actors.tell(ref.address, { type: 'storeFailed', step, taskId, atMs: clock.now() });
    }
  }

  function fenced(ref: SessionRef, step: string, taskId: TaskId | undefined): void {
    const { tenant, sessionId, epoch } = ref;
    const ids = { tenant_id: tenant.tenantId, session_id: sessionId, task_id: taskId, epoch };
    log.warn({ ...ids, step }, "a session is no longer this node's");
    actors.tell(ref.address, { type: 'fenced' });
  }

  /** A turn said again is told of only where it is a turn of the same session: its end will be heard there. */
  async function turnBefore(ref: SessionRef, taskId: TaskId): Promise<Reply<TurnStatus>> {
    const known = await store.turn(ref.tenant.tenantId, taskId);
    // Deleted just now: said once more it is new.
    if (!known) return { ok: false, error: refusal('BUSY', { retryAfterMs: GONE_RETRY_MS }) };
    return known.sessionId === ref.sessionId
      ? { ok: true, value: known.status }
      : { ok: false, error: taskTaken() };
  }

  return function perform(ref, effect) {
    const { step, taskId, write, wait } = effect;
    const committed = store.commit(write);
    if (wait) return void report(ref, effect, committed);
    // The tier wants speed before certainty: the session goes on as if it were stored.
    committed.then(
      (outcome) => outcome === 'fenced' && fenced(ref, step, taskId),
      (error: unknown) => log.warn({ err: error, step, task_id: taskId }, 'a write was lost'),
    );
    actors.tell(ref.address, { type: 'stored', step, taskId, duplicate: undefined, atMs: clock.now() });
  };
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
function logEnd(log: Log, { tenantId, sessionId, taskId, status, error }: TurnRecord): void {
  const ids = { tenant_id: tenantId, session_id: sessionId, task_id: taskId, status };
  if (error) log.info({ ...ids, code: error.code }, 'turn failed');
  else log.debug(ids, 'turn ended');
}
