/** The desk of a node: takes actions off the work queues, has them done, and sees to it that each is answered once. */
import {
  callbackProblem,
  endStatus,
  errorReply,
  type ReplyBody,
  replyQueue,
} from '../../src/domain/action-replies.ts';
import { type Command, expectsReply, readCommand } from '../../src/domain/action-types.ts';
import { replyId } from '../../src/domain/derived-ids.ts';
import { parseDomainAction } from '../../src/domain/domain-action.ts';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import type { AgentId, TaskId, TenantId } from '../../src/domain/ids.ts';
import {
  nodeSubscriptions,
  type QueueName,
  type Subscription,
  tierSubscription,
} from '../../src/domain/queues.ts';
import { type Tier, type TierTable, tierSchema } from '../../src/domain/tiers.ts';
import type { CancelReply } from '../../src/domain/turn.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type { Relay } from '../../src/ports/outbox.ts';
import type { Peers } from '../../src/ports/peers.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import type { Clock, Log, Timers } from '../../src/ports/telemetry.ts';
import {
  type ActionDelivery,
  type Consumption,
  type Listener,
  NOT_ITS_FAULT,
  type ReadMessage,
  type Transport,
} from '../../src/ports/transport.ts';
import { createBreaks } from './abortable.ts';
import { createActionBatches } from './batches.ts';
import { createActionQueries } from './queries.ts';
import { createReplies, type Request, requestOf } from './replies.ts';
import { createActionRuns, runRequest } from './runs.ts';

/** Pushes that are remembered, so that one delivered again is not shown again; sockets do not outlive the process. */
const MAX_SEEN = 10_000;

/** Callbacks are taken beside the runs for which a node has places: runs wait for them. */
const CALLBACKS_AT_ONCE = 64;

const isCallbacks = ({ queue }: Subscription): boolean => queue.startsWith('agent_execution_service:');

export interface ActionWorkerDeps {
  readonly transport: Transport;
  readonly relay: Relay;
  readonly directory: Directory;
  readonly executions: Pick<Executions, 'start' | 'startWithRetry' | 'atOnce'>;
  readonly peers: Peers;
  /** Forgets what is held of an agent's configuration. */
  readonly invalidateAgent: (tenantId: TenantId, agentId: AgentId) => void;
  readonly clock: Clock;
  readonly log: Log;
  readonly lanes: readonly Subscription[];
  /** Actions worked on at once. A run holds its place to its end. */
  readonly credits: number;
  readonly newId: () => string;
  readonly timers?: Timers;
}

export interface ActionWorker {
  /** Begins to take actions. */
  start(): Promise<void>;
  /** Takes no more, and gives back what waits for a better moment; runs go on, and are answered. */
  drain(): void;
  /** Gives back what still runs, and resolves when all that was taken is settled. Safe to call twice. */
  close(): Promise<void>;
}

/**
 * Delivery: each action is done once and answered alike however often it comes, where it has an `action_id`. Order:
 * actions begin as the transport hands them over; a session takes its turns in that order.
 */
export function createActionWorker(deps: ActionWorkerDeps): ActionWorker {
  const { transport, relay, directory, executions, log } = deps;
  const pauses = createBreaks(deps.timers);
  const running = createBreaks(deps.timers);
  const replies = createReplies(deps);
  const runs = createActionRuns({ directory, relay, replies, pauses, runs: running, log });
  const answerBatch = createActionBatches({ executions, runs, replies, pauses, log });
  const answerQuestion = createActionQueries({ ...deps, replies, signal: running.signal });
  /** Actions that are being worked on: the same one again waits for that. */
  const open = new Map<string, Promise<void>>();
  const seen = new Set<string>();
  let consumptions: readonly Consumption[] = [];
  let stopping: Promise<void> | undefined;

  const keyOf = ({ action }: ActionDelivery): string =>
    `${action.tenant_id} ${action.action_type} ${action.action_id}`;

  const listener: Listener = (delivery) => {
    if (!delivery.idGiven) return work(delivery);
    const key = keyOf(delivery);
    const first = open.get(key);
    // It is answered once it is known what.
    if (first) return first.catch(() => {}).then(() => listener(delivery));
    const done = work(delivery).finally(() => open.delete(key));
    open.set(key, done);
    return done;
  };

  async function work(delivery: ActionDelivery): Promise<void> {
    const { action } = delivery;
    const request = requestOf(delivery);
    const read = readCommand(action);
    if (read.ok) return perform(delivery, request, read.order);
    // Without a queue it went to the dead list when it was read. The same again is refused alike, unremembered.
    await replies.send(request, errorReply(read.error));
  }

  async function perform(delivery: ActionDelivery, request: Request, order: Command): Promise<void> {
    const { action } = delivery;
    switch (order.type) {
      case 'run':
        await runs.answer(runRequest(request, order), executions.start);
        return;
      case 'batch':
        return answerBatch(request, order);
      case 'cancel':
        return cancel(request, order.taskId);
      case 'status':
      case 'agent-config':
      case 'history':
      case 'context':
        return answerQuestion(request, order);
      case 'invalidate':
        deps.invalidateAgent(action.tenant_id, order.agentId);
        return;
      case 'replied':
        transport.replied(action);
        return;
      case 'push':
        push(delivery, order);
        return;
    }
  }

  /** Cancelled twice is cancelled once; what is remembered is what was answered. */
  async function cancel(request: Request, taskId: TaskId): Promise<void> {
    const { tenant_id: tenantId, action_id: actionId } = request.action;
    // A run must be stopped also while the store is away.
    const before = await replies.answered(request).catch(() => null);
    if (
      before?.id === replyId(tenantId, actionId, 'cancelled') &&
      (before.action || request.queue === undefined)
    )
      return replies.again(request, before);
    const reply = await directory.cancel(tenantId, taskId);
    const about = { taskId: request.action.task_id ?? taskId };
    if (reply.ok) return replies.keep(replies.made(request, 'cancelled', cancelled(reply), about));
    if (NOT_ITS_FAULT.has(reply.error.code)) throw new RefusalError(reply.error);
    await replies.send(request, withTask(errorReply(reply.error), taskId), about);
  }

  function push(delivery: ActionDelivery, { sessions, frame }: Extract<Command, { type: 'push' }>): void {
    const key = keyOf(delivery);
    if (delivery.idGiven && seen.has(key)) return;
    directory.push(delivery.action.tenant_id, sessions, frame);
    if (!delivery.idGiven) return;
    seen.add(key);
    const [oldest] = seen.size > MAX_SEEN ? seen : [];
    if (oldest !== undefined) seen.delete(oldest);
  }

  /** Whoever waits for an action that nobody will work on any more is told why. */
  function onDead(delivery: ActionDelivery, error: RefusalError['data']): void {
    const { action } = delivery;
    const queue = replyQueue(action);
    if (queue === undefined || !expectsReply(action.action_type)) return;
    tellDead(requestOf(delivery), error).catch((failure: unknown) =>
      log.warn({ err: failure, queue }, 'a dead action was not answered'),
    );
  }

  /** A node may have died between the answer and its acknowledgement: then that answer holds. */
  async function tellDead(request: Request, error: RefusalError['data']): Promise<void> {
    const before = await replies.answered(request);
    if (before?.action) return replies.again(request, before);
    // Nothing is remembered as its answer: it may be sent anew from the dead list.
    await replies.keep(replies.made({ ...request, answers: undefined }, 'dead', errorReply(error)));
  }

  function drain(): void {
    pauses.end();
    stopping ??= Promise.all(consumptions.map((each) => each.stop())).then(() => {});
    stopping.catch((error: unknown) => log.warn({ err: error }, 'the desk did not stop as it should'));
  }

  return {
    async start() {
      const take = async (lanes: readonly Subscription[], credits: number): Promise<void> => {
        if (lanes.length === 0) return;
        const options = { credits, read: readDelivered, onDead };
        consumptions = [...consumptions, await transport.consume(lanes, listener, options)];
      };
      await take(
        deps.lanes.filter((lane) => !isCallbacks(lane)),
        deps.credits,
      );
      await take(deps.lanes.filter(isCallbacks), CALLBACKS_AT_ONCE);
    },
    drain,
    async close() {
      drain();
      running.end();
      await stopping;
    },
  };
}

const withTask = ({ type, data }: ReplyBody, taskId: TaskId): ReplyBody => ({
  type,
  data: { task_id: taskId, ...data },
});

function cancelled({ taskId, status, abortMs }: Extract<CancelReply, { ok: true }>): ReplyBody {
  return {
    type: 'execution.callback',
    data: { task_id: taskId, status: endStatus(status), abort_ms: Math.ceil(abortMs) },
  };
}

/**
 * Refuses at once what no delivery will do better with: what nobody works on, what names a queue that it may not name,
 * and data that does not fit where nobody could be told.
 */
export const readDelivered: ReadMessage = (raw, _queue, nowMs, newId) => {
  const parsed = parseDomainAction(raw, nowMs, newId);
  if (!parsed.ok) return parsed;
  const { action } = parsed;
  const problem = callbackProblem(action);
  if (problem !== null) return { ok: false, error: refusal('FORBIDDEN', { message: problem }) };
  if (replyQueue(action) !== undefined && expectsReply(action.action_type)) return parsed;
  const read = readCommand(action);
  return read.ok ? parsed : { ok: false, error: read.error };
};

/**
 * `extra`: EXECUTION_EXTRA_QUEUES (`execution:{context_id}:{tier}`). Each counts among the queues of the tier that its
 * last segment names, or of `defaultTier`.
 */
export const workSubscriptions = (
  extra: readonly QueueName[],
  defaultTier: Tier,
  table: TierTable,
): readonly Subscription[] => [
  ...nodeSubscriptions(table),
  ...extra.map((queue) => {
    const named = tierSchema.safeParse(queue.slice(queue.lastIndexOf(':') + 1));
    return tierSubscription(queue, named.data ?? defaultTier, 1, table);
  }),
];
