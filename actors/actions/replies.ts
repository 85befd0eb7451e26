/** How the desk's replies leave: kept first where they are the one answer to an action, straight away where they are not. */
import {
  type ReplyBody,
  type ReplySubject,
  replyAction,
  replyQueue,
} from '../../src/domain/action-replies.ts';
import { replyId } from '../../src/domain/derived-ids.ts';
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import type { TaskId } from '../../src/domain/ids.ts';
import type { QueueName } from '../../src/domain/queues.ts';
import type { Relay } from '../../src/ports/outbox.ts';
import type { Outgoing } from '../../src/ports/store.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';
import type { ActionDelivery, ActionFormat, Transport } from '../../src/ports/transport.ts';

/** An action that may be answered. */
export interface Request {
  readonly action: DomainAction;
  readonly format: ActionFormat;
  /** Where the answer is awaited. */
  readonly queue: QueueName | undefined;
  /** What the answer is remembered by; undefined: it is not. */
  readonly answers: string | undefined;
  /** The task that a reply names; undefined: the action's. */
  readonly taskId?: TaskId;
}

export const requestOf = ({ action, idGiven, format }: ActionDelivery): Request => ({
  action,
  format,
  queue: replyQueue(action),
  answers: idGiven ? action.action_id : undefined,
});

/** Replies that the store did not keep, remembered here instead: its turns look as if they still ran. */
const MAX_UNKEPT = 1_000;

export interface ReplyDeps {
  readonly transport: Transport;
  readonly relay: Relay;
  readonly clock: Clock;
  readonly log: Log;
  readonly newId: () => string;
}

export interface Replies {
  /** The reply of that `name`: the same again whenever the action is. Undefined where nobody would ever ask for it. */
  made(request: Request, name: string, body: ReplyBody, about?: ReplySubject): Outgoing | undefined;
  /** Resolves once it is kept or, where the store does not, sent. Rejects where neither can be done. */
  keep(outgoing: Outgoing | undefined): Promise<void>;
  /** Resolves once sent. It is not remembered: the same action again may be answered otherwise. */
  send(request: Request, body: ReplyBody, about?: ReplySubject): Promise<void>;
  /** Sends what was answered once more, to where this request waits. */
  again(request: Request, before: Outgoing): Promise<void>;
  /** What was answered to this request. Rejects with STORE_UNAVAILABLE. */
  answered(request: Request): Promise<Outgoing | null>;
}

export function createReplies({ transport, relay, clock, log, newId }: ReplyDeps): Replies {
  const put = async (queue: QueueName, action: DomainAction, { format }: Request): Promise<void> => {
    try {
      await transport.send(queue, action, format);
    } catch (error) {
      if (!(error instanceof RefusalError) || error.data.code !== 'TOO_LARGE') throw error;
      // Whoever waits must not wait for ever.
      const told = refusal('TOO_LARGE', { message: 'The answer is too large.' });
      await transport.send(queue, { ...action, data: { success: false, error: told } }, format);
    }
  };

  const unkept = new Map<string, Outgoing>();
  const unkeptKey = (tenantId: string, answers: string): string => `${tenantId} ${answers}`;

  function remember(outgoing: Outgoing): void {
    if (outgoing.answers === undefined) return;
    unkept.set(unkeptKey(outgoing.tenantId, outgoing.answers), outgoing);
    const [oldest] = unkept.size > MAX_UNKEPT ? unkept.keys() : [];
    if (oldest !== undefined) unkept.delete(oldest);
  }

  const ownTask = ({ taskId }: Request): ReplySubject => (taskId === undefined ? {} : { taskId });

  const envelope = (request: Request, id: string, body: ReplyBody, about: ReplySubject): DomainAction =>
    replyAction(request.action, body, { id, nowMs: clock.now(), ...about, ...ownTask(request) });

  return {
    made(request, name, body, about = {}) {
      const { action, format, queue, answers } = request;
      if (queue === undefined && answers === undefined) return undefined;
      const id = replyId(action.tenant_id, action.action_id, name);
      const reply = queue === undefined ? undefined : envelope(request, id, body, about);
      return { tenantId: action.tenant_id, id, answers, queue, format, action: reply };
    },
    async keep(outgoing) {
      if (!outgoing) return;
      try {
        await relay.keep([outgoing]);
      } catch (error) {
        log.warn({ err: error, tenant_id: outgoing.tenantId }, 'a reply was not kept');
        const { queue, action, format } = outgoing;
        if (queue !== undefined && action) await transport.send(queue, action, format);
        remember(outgoing);
      }
    },
    async send(request, body, about = {}) {
      if (request.queue === undefined) return;
      await put(request.queue, envelope(request, newId(), body, about), request);
    },
    async again({ queue, action }, before) {
      if (!before.action || before.queue === undefined) return;
      // Who asks anew may wait elsewhere now: a list of its own for each request, say.
      const { correlation_id } = action;
      const moved = queue !== undefined && queue !== before.queue;
      const reply =
        moved && correlation_id !== undefined ? { ...before.action, correlation_id } : before.action;
      await relay.resend(moved ? { ...before, queue, action: reply } : before);
    },
    async answered({ action, answers }) {
      if (answers === undefined) return null;
      const key = unkeptKey(action.tenant_id, answers);
      return unkept.get(key) ?? relay.store.answered(action.tenant_id, answers);
    },
  };
}
