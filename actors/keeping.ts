/** Keeps what a session says must be kept, and brings back what the store answered. */
import type { TaskId } from '../src/domain/ids.ts';
import type { Clock, Log, Store } from '../src/ports.ts';
import type { ActorSystem } from './address.ts';
import type { SessionRef } from './registry.ts';
import type { SessionEffect } from './session-effect.ts';
import { taskTaken } from './session-endings.ts';
import type { SessionMessage } from './session-state.ts';

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
