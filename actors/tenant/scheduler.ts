/** The scheduler: how many executions run on the node, and which tenant's turn is next when all want more. Pure. */
import { dequeued, emptyFairQueue, enqueued, type FairQueue, removed } from '../../src/domain/fair-queue.ts';
import type { SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import { type Behaviour, unreachable } from '../runtime/actor.ts';

interface SlotRequest {
  readonly tenantId: TenantId;
  /** Which life of the tenant asks: one that was stopped and is back has nothing to do with it. */
  readonly tenancy: number;
  readonly sessionId: SessionId;
  readonly taskId: TaskId;
  readonly attempt: number;
}

export interface SchedulerState {
  readonly capacity: number;
  readonly running: number;
  readonly queue: FairQueue<SlotRequest>;
  /** Executions that were started since the last tick. */
  readonly started: number;
  readonly ticking: boolean;
}

export type SchedulerMessage =
  | ({ readonly type: 'requestSlot'; readonly weight: number } & SlotRequest)
  | { readonly type: 'slotReleased' }
  /** A tenant has stopped with so many slots requested or granted; nobody else releases them. */
  | { readonly type: 'tenantGone'; readonly tenantId: TenantId; readonly held: number }
  /** A loop turn has passed. */
  | { readonly type: 'tick' };

export type SchedulerEffect =
  | ({ readonly type: 'slotGranted' } & SlotRequest)
  | { readonly type: 'tickSoon' };

/**
 * Executions started in one loop turn. A start costs up to a millisecond (request, schemas), so that a tenant's
 * flood of hundreds would otherwise stand between a quiet tenant's turn and the loop.
 */
const STARTS_PER_TICK = 8;

export const newScheduler = (capacity: number): SchedulerState => ({
  capacity,
  running: 0,
  queue: emptyFairQueue,
  started: 0,
  ticking: false,
});

export const scheduler: Behaviour<SchedulerState, SchedulerMessage, SchedulerEffect> = (state, message) => {
  switch (message.type) {
    case 'requestSlot': {
      const { type, weight, ...request } = message;
      return serve({ ...state, queue: enqueued(state.queue, request.tenantId, weight, request) });
    }
    case 'slotReleased':
      return serve({ ...state, running: state.running - 1 });
    case 'tenantGone': {
      const queue = removed(state.queue, message.tenantId, () => true);
      const granted = message.held - (state.queue.size - queue.size);
      return serve({ ...state, queue, running: state.running - granted });
    }
    case 'tick':
      return serve({ ...state, started: 0, ticking: false });
    default:
      return unreachable(message);
  }
};

function serve(state: SchedulerState): readonly [SchedulerState, readonly SchedulerEffect[]] {
  const effects: SchedulerEffect[] = [];
  let { queue, running, started } = state;
  while (running < state.capacity && started < STARTS_PER_TICK) {
    const next = dequeued(queue);
    if (!next) break;
    queue = next.rest;
    running += 1;
    started += 1;
    effects.push({ type: 'slotGranted', ...next.item });
  }
  const ticking = state.ticking || started > 0;
  if (ticking && !state.ticking) effects.push({ type: 'tickSoon' });
  return [{ ...state, queue, running, started, ticking }, effects];
}
