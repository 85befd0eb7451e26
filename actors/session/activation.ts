/** How sessions come to life on a node, within which bounds, and what is set right when one of them is gone. */
import { CLOSE, type ErrorData, refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import type { Opening, Owned, Placement, SessionKey } from '../../src/ports/cluster.ts';
import type { Epoch } from '../../src/ports/store.ts';
import { closeClients, keyOf, type SessionRef, type TenantRef } from '../registry.ts';
import { type ActorKind, RESTARTS, type StopReason } from '../runtime/actor.ts';
import { hourRate } from './admission.ts';
import type { Pacer } from './delta-pacer.ts';
import { createSessionEffects, type SessionEffectDeps, type SessionOf } from './effects.ts';
import { abandonedWrite, released } from './ending.ts';
import { createEventStream } from './event-stream.ts';
import { answerUnhandled, releaseUnheard } from './lifecycle.ts';
import type { SessionConfig, SessionEffect, SessionMessage, SessionState } from './protocol.ts';
import { recoverSession } from './recovery.ts';
import { newSession, session } from './session.ts';
import type { Turn } from './turn.ts';

interface SessionDeps extends SessionEffectDeps {
  readonly config: SessionConfig;
  readonly pacer: Pacer;
  readonly deltaWindowMs: number;
  readonly idleMs: number;
  /** Finds the tenant, or makes it. */
  readonly tenantOf: (tenantId: TenantId) => TenantRef;
  readonly placement: Pick<Placement, 'release'>;
}

/** Makes a session of what the node was given of it; one that lives already stays. */
export type Activate = (key: SessionKey, owned: Owned, opening: Opening) => SessionRef;

/** A session is spawned from outside, as a child of its tenant: the tenant is not asked, so it stays quick. */
export function createActivation(deps: SessionDeps): Activate {
  const { actors, registry, pacer, clock, log, deltaWindowMs, config, tenantOf } = deps;
  const kind = sessionKind(deps);
  const performing = createSessionEffects(deps);

  /** A run's own session is asked for by others: from now on it is placed like any other. */
  function place(ref: SessionRef, epoch: Epoch): void {
    ref.epoch = epoch;
    ref.unplaced = false;
    actors.tell(ref.address, { type: 'owned', epoch });
  }

  return function activate({ tenantId, sessionId }, { epoch, log: logId }, { tier, ephemeral = false }) {
    const found = registry.session(tenantId, sessionId);
    if (found?.unplaced && !ephemeral) place(found, epoch);
    if (found) return found;
    const tenant = tenantOf(tenantId);
    const bucket = ephemeral ? null : registry.sessionRates.find(keyOf(tenantId, sessionId), clock.now());
    const onFault = (error: unknown): void =>
      log.error({ err: error, session_id: sessionId }, 'a client could not be written to');
    const self: SessionOf = { ref: undefined };
    const perform = performing(self);
    const ref: SessionRef = {
      tenant,
      sessionId,
      address: actors.spawn(tenant.address, kind, {
        name: sessionId,
        initial: newSession(tenantId, sessionId, config, epoch, { bucket, ephemeral }),
        interpret: perform,
      }),
      stream: createEventStream({ tenantId, epoch: logId, clock, pacer, deltaWindowMs, onFault }),
      ...{ epoch, unplaced: ephemeral, whenReleased: null },
      arriving: new Map(),
      execution: null,
    };
    self.ref = ref;
    registry.addSession(ref);
    if (ephemeral) actors.tell(ref.address, { type: 'loaded', history: [], interrupted: [] });
    else perform({ type: 'load' });
    perform({ type: 'join', tier });
    return ref;
  };
}

/** What came to a session as it left: it is heard by the one that is made next. */
const JUST_CLOSED = refusal('BUSY', {
  message: 'The session was just closed; try again.',
  retryAfterMs: 100,
});

function sessionKind(deps: SessionDeps): ActorKind<SessionState, SessionMessage, SessionEffect> {
  const { actors, registry } = deps;
  return {
    kind: 'session',
    behaviour: session,
    recover: recoverSession,
    mailboxLimit: 1_000,
    restarts: RESTARTS,
    idle: { afterMs: deps.idleMs, message: { type: 'idle' } },
    onStopped: (state, reason) => stopped(deps, state, reason),
    onDeadLetter(message, { tenantId, sessionId }) {
      answer(deps, registry.session(tenantId, sessionId), message, JUST_CLOSED);
      const release = releaseUnheard(message);
      const tenant = registry.tenants.get(tenantId);
      if (release && tenant && actors.isAlive(tenant.address)) actors.tell(tenant.address, release);
    },
  };
}

/** Clients are told and closed, those who wait are answered, slots are released, turns end as INTERNAL. */
function stopped(deps: SessionDeps, state: SessionState, reason: StopReason): void {
  const { actors, registry, clock } = deps;
  const ref = registry.session(state.tenantId, state.sessionId);
  if (!ref) return;
  registry.removeSession(ref);
  // Without a tier it has handled nothing, and what is remembered of its rate holds.
  if (state.tier && !state.ephemeral) {
    const key = keyOf(state.tenantId, state.sessionId);
    registry.sessionRates.keep(key, state.bucket, hourRate(state), clock.now());
  }
  const crashed = reason === 'crashed';
  const error = refusal(crashed ? 'INTERNAL' : 'INTERRUPTED');
  for (const message of state.stash ?? []) answer(deps, ref, message, error);
  for (const turn of state.turns) abandon(deps, ref, state, turn, error);
  for (const replyTo of state.forgetting?.replyTo ?? []) actors.reply(replyTo, { ok: false, error });
  const told = crashed ? { error, atMs: clock.now() } : null;
  closeClients(ref, crashed ? CLOSE.restart : CLOSE.goingAway, told);
  release(deps, ref);
}

/** Behind all that it wrote, its last ends too. */
function release({ placement }: SessionDeps, ref: SessionRef): void {
  const { tenant, sessionId, epoch, unplaced } = ref;
  const released = (): void => {
    for (const tell of ref.whenReleased ?? []) tell();
  };
  if (unplaced) return released();
  void placement.release({ tenantId: tenant.tenantId, sessionId }, epoch).then(released);
}

function abandon(
  { actors, registry, store, clock, log }: SessionDeps,
  ref: SessionRef,
  state: SessionState,
  turn: Turn,
  error: ErrorData,
): void {
  const { taskId } = turn;
  const refused = { ok: false, taskId, error } as const;
  for (const { replyTo } of turn.callers) actors.reply(replyTo, refused);
  for (const { replyTo } of turn.cancellers) actors.reply(replyTo, refused);
  registry.untrack(ref, taskId);
  if (actors.isAlive(ref.tenant.address))
    for (const release of released(turn, false)) actors.tell(ref.tenant.address, release);
  if (turn.phase === 'admitting' || turn.phase === 'withdrawn') return;
  const atMs = clock.now();
  if (turn.stored) ref.stream.event(taskId, { type: 'error', data: error }, atMs);
  if (turn.phase === 'ending' && turn.writing) return;
  // One whose beginning is being stored was told to nobody, but must not look as if it waited for ever.
  store
    .commit(abandonedWrite(state, turn, error, atMs))
    .catch((cause: unknown) =>
      log.warn({ err: cause, task_id: taskId }, 'end of a crashed turn was not stored'),
    );
}

function answer(
  { actors, registry }: SessionDeps,
  ref: SessionRef | undefined,
  message: SessionMessage,
  error: ErrorData,
): void {
  for (const effect of answerUnhandled(message, error)) {
    if (effect.type === 'reply') actors.reply(effect.replyTo, effect.value);
    if (effect.type === 'untrack' && ref) registry.untrack(ref, effect.taskId);
  }
}
