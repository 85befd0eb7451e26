/** How replies to actions leave: stored first where they are the one answer to an action, else sent straight away. */
import { LRUCache } from 'lru-cache';
import {
  type ReplyBody,
  type ReplySubject,
  replyAction,
  replyQueue,
} from '../../src/domain/action-replies.ts';
import { defined } from '../../src/domain/defined.ts';
import { replyId } from '../../src/domain/derived-ids.ts';
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import type { TaskId } from '../../src/domain/ids.ts';
import type { QueueName } from '../../src/domain/queues.ts';
import type { ReplySpec } from '../../src/domain/reply-spec.ts';
import type { Relay } from '../../src/ports/outbox.ts';
import type { Outgoing } from '../../src/ports/store.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';
import type { ActionDelivery, ActionFormat, Transport } from '../../src/ports/transport.ts';

/** An action that may be answered. */
export interface ActionRequest {
  readonly action: DomainAction;
  readonly format: ActionFormat;
  /** Where the answer is awaited. */
  readonly queue: QueueName | undefined;
  /** The `action_id` under which the answer is stored; undefined: it is not. */
  readonly answers: string | undefined;
  /** The task that a reply names; undefined: the action's. */
  readonly taskId?: TaskId;
}

/** `taken`: the queues that the node takes from, where nobody may be answered. */
export const requestOf = (
  { action, idGiven, format }: ActionDelivery,
  taken: ReadonlySet<string>,
): ActionRequest => ({
  action,
  format,
  queue: replyQueue(action, taken),
  answers: idGiven ? action.action_id : undefined,
});

/** Replies that the store did not take, remembered here instead: their turns look as if they still ran. */
const MAX_UNSTORED = 1_000;

interface ReplyDeps {
  readonly transport: Transport;
  readonly relay: Relay;
  readonly clock: Clock;
  readonly log: Log;
  readonly newId: () => string;
}

/** What the sender of a run asked of its reply. */
type ReplyWishes = Pick<ReplySpec, 'conversationId' | 'index' | 'reasoning'>;

export interface Replies {
  /** The reply of that `name`: equal however often it is made. Undefined where nobody would ever ask for it. */
  make(request: ActionRequest, name: string, body: ReplyBody, about?: ReplySubject): Outgoing | undefined;
  /** The reply that a turn's end is to bring; undefined as above. `make` of the ended turn is the same. */
  spec(request: ActionRequest, name: string, wishes: ReplyWishes): ReplySpec | undefined;
  /** Resolves once it is stored or, where the store does not answer, sent. Rejects where neither can be done. */
  store(outgoing: Outgoing | undefined): Promise<void>;
  /** Resolves once sent. It is not remembered: the same action, repeated, may be answered otherwise. */
  send(request: ActionRequest, body: ReplyBody, about?: ReplySubject): Promise<void>;
  /** What this request was answered before; null too where that has another name. Rejects with STORE_UNAVAILABLE. */
  stored(request: ActionRequest, name?: string): Promise<Outgoing | null>;
  /**
   * Sends the answer of before to where this request waits. False where nobody waited for it then, and somebody does
   * now: there is no such answer.
   */
  repeat(request: ActionRequest, before: Outgoing): Promise<boolean>;
}

export function createReplies({ transport, relay, clock, log, newId }: ReplyDeps): Replies {
  const unstored = new LRUCache<string, Outgoing>({ max: MAX_UNSTORED });
  const keyOf = (tenantId: string, actionId: string): string => `${tenantId} ${actionId}`;

  const envelope = (
    { action, taskId }: ActionRequest,
    id: string,
    body: ReplyBody,
    about: ReplySubject = {},
  ): DomainAction =>
    replyAction(action, body, { id, nowMs: clock.now(), ...about, taskId: taskId ?? about.taskId });

  return {
    make(request, name, body, about) {
      const { action, format, queue, answers } = request;
      if (queue === undefined && answers === undefined) return undefined;
      const id = replyId(action.tenant_id, action.action_id, name);
      const reply = queue === undefined ? undefined : envelope(request, id, body, about);
      return { tenantId: action.tenant_id, id, answers, queue, format, action: reply };
    },
    spec({ action, format, queue, answers }, name, wishes) {
      if (queue === undefined && answers === undefined) return undefined;
      const { tenant_id, tenant_tier, session_id, user_id, agent_id, correlation_id, trace_id } = action;
      return defined({
        id: replyId(tenant_id, action.action_id, name),
        ...{ answers, queue, format, ...wishes },
        request: defined({
          ...{ tenant_id, tenant_tier, session_id, user_id, agent_id, correlation_id, trace_id },
        }),
      });
    },
    async store(outgoing) {
      if (!outgoing) return;
      try {
        await relay.write([outgoing]);
      } catch (error) {
        const { tenantId, answers, queue, action, format } = outgoing;
        log.warn({ err: error, tenant_id: tenantId }, 'a reply was not stored');
        if (queue !== undefined && action) await transport.send(queue, action, format);
        if (answers !== undefined) unstored.set(keyOf(tenantId, answers), outgoing);
      }
    },
    async send(request, body, about) {
      const { queue, format } = request;
      if (queue !== undefined)
        await sendBounded(transport, queue, envelope(request, newId(), body, about), format);
    },
    async stored({ action, answers }, name) {
      if (answers === undefined) return null;
      const { tenant_id: tenantId, action_id: actionId } = action;
      const before =
        unstored.get(keyOf(tenantId, answers)) ?? (await relay.store.answered(tenantId, answers));
      return name === undefined || before?.id === replyId(tenantId, actionId, name) ? before : null;
    },
    async repeat({ queue, action: { correlation_id } }, before) {
      if (!before.action || before.queue === undefined) return queue === undefined;
      // Whoever repeats a request may wait elsewhere now: on a list of its own for each request, say.
      if (queue === undefined || queue === before.queue) await relay.resend(before);
      else
        await relay.resend({
          ...before,
          queue,
          action: { ...before.action, ...defined({ correlation_id }) },
        });
      return true;
    },
  };
}

/** Sends a reply, or that it is too large: whoever waits must not wait for ever. */
async function sendBounded(
  transport: Transport,
  queue: QueueName,
  action: DomainAction,
  format: ActionFormat,
): Promise<void> {
  try {
    await transport.send(queue, action, format);
  } catch (error) {
    if (!(error instanceof RefusalError) || error.data.code !== 'TOO_LARGE') throw error;
    const tooLarge = refusal('TOO_LARGE', { message: 'The answer is too large.' });
    await transport.send(queue, { ...action, data: { success: false, error: tooLarge } }, format);
  }
}
