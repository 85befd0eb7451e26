/** The action worker of a node: takes actions off the work queues, performs them, and has each answered once. */
import { LRUCache } from 'lru-cache';
import { callbackProblem, errorReply, isReplyType, replyStatus } from '../../src/domain/action-replies.ts';
import { type Command, type CommandOf, expectsReply, readCommand } from '../../src/domain/action-types.ts';
import { type DomainAction, parseDomainAction } from '../../src/domain/domain-action.ts';
import { type ErrorData, RefusalError, refusal } from '../../src/domain/errors.ts';
import type { AgentId, TenantId } from '../../src/domain/ids.ts';
import {
  nodeSubscriptions,
  type QueueName,
  type Subscription,
  tierSubscription,
} from '../../src/domain/queues.ts';
import { type Tier, type TierTable, tierSchema } from '../../src/domain/tiers.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type { Relay } from '../../src/ports/outbox.ts';
import type { Peers } from '../../src/ports/peers.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import type { Clock, Log, Refusals, Timers } from '../../src/ports/telemetry.ts';
import {
  type ActionDelivery,
  type ConsumeOptions,
  type Consumption,
  type Listener,
  NOT_ITS_FAULT,
  type ReadMessage,
  SetAside,
  type Transport,
} from '../../src/ports/transport.ts';
import { type Abortable, createAbortable } from './abortable.ts';
import { createActionBatches } from './batches.ts';
import { MAX_BEHIND, type Places, withPlaces } from './places.ts';
import { createActionQueries } from './queries.ts';
import { type ActionRequest, createReplies, type Replies, requestOf } from './replies.ts';
import { createActionRuns, runRequest, taskOf } from './runs.ts';

/** Pushes that are remembered, so that one delivered again is not shown again; sockets do not outlive the process. */
const MAX_PUSHED = 10_000;

/** What needs no place (questions, cancels, callbacks) is taken beside the runs that are in hand. */
const OTHERS_AT_ONCE = 256;

const isCallbacks = ({ queue }: Subscription): boolean => queue.startsWith('agent_execution_service:');

interface ActionWorkerDeps {
  readonly transport: Transport;
  readonly relay: Relay;
  readonly directory: Directory;
  readonly executions: Pick<Executions, 'start' | 'startWithRetry' | 'atOnce'>;
  readonly peers: Peers;
  /** Forgets what is held of an agent's configuration. */
  readonly invalidateAgent: (tenantId: TenantId, agentId: AgentId) => void;
  readonly clock: Clock;
  readonly log: Log;
  readonly refusals: Refusals;
  /** The queues to take from. Nobody is answered on them. */
  readonly subscriptions: readonly Subscription[];
  readonly places: Places;
  readonly newId: () => string;
  readonly timers?: Timers;
}

interface ActionWorker {
  /** Begins to take actions. */
  start(): Promise<void>;
  /** Takes no more, and requeues what waits for a better moment; runs go on, and are answered. */
  drain(): void;
  /** Requeues what still runs, and resolves when all that was taken is settled. Safe to call twice. */
  close(): Promise<void>;
}

/**
 * Delivery: each action is performed once and answered alike however often it comes, where it has an `action_id`.
 * Order: actions start as the transport hands them over; a session takes its turns in that order.
 */
export function createActionWorker(deps: ActionWorkerDeps): ActionWorker {
  const { transport, log, subscriptions } = deps;
  const taken: ReadonlySet<string> = new Set(subscriptions.map(({ queue }) => queue));
  const pauses = createAbortable(deps.timers);
  const running = createAbortable(deps.timers);
  const replies = createReplies(deps);
  /** What the actions ask for that were read and are worked on. */
  const commands = new WeakMap<DomainAction, Command>();
  const perform = createPerform({ ...deps, replies, pauses, running });
  let consumptions: readonly Consumption[] = [];
  let stopping: Promise<void> | undefined;

  const listener = oneAtATime(async (delivery) => {
    const request = requestOf(delivery, taken);
    const command = commands.get(delivery.action);
    // Not acknowledged, then: what is not worked on must not be lost.
    if (!command) throw new Error('an action came that was not read');
    await perform(delivery, request, command);
  });

  /** Whoever waits for an action that nobody will work on any more is told why. */
  function onDead(delivery: ActionDelivery, error: ErrorData): void {
    const request = requestOf(delivery, taken);
    if (request.queue === undefined || !expectsReply(delivery.action.action_type)) return;
    answerDead(replies, request, error).catch((failure: unknown) =>
      log.warn({ err: failure, queue: request.queue }, 'a dead action was not answered'),
    );
  }

  /** Whoever sent what no node can work on is told, on whatever queue of its own it names. It is found again alike. */
  function onRefused(delivery: ActionDelivery, error: ErrorData): void {
    const request = requestOf(delivery, taken);
    if (request.queue === undefined || isReplyType(delivery.action.action_type)) return;
    replies
      .send(request, errorReply(error))
      .catch((failure: unknown) =>
        log.warn({ err: failure, queue: request.queue }, 'a refused action was not answered'),
      );
  }

  const onUnread: ConsumeOptions['onUnread'] = (queue, error) =>
    deps.refusals.refused('redis', error, { queue });

  async function consume(some: readonly Subscription[]): Promise<void> {
    if (some.length === 0) return;
    const credits = deps.places.size + MAX_BEHIND + OTHERS_AT_ONCE;
    const options = { credits, read: readWork(taken, commands), onDead, onRefused, onUnread };
    consumptions = [...consumptions, await transport.consume(some, listener, options)];
  }

  function drain(): void {
    pauses.end();
    stopping ??= Promise.all(consumptions.map((each) => each.stop())).then(() => {});
    stopping.catch((error: unknown) =>
      log.warn({ err: error }, 'the action worker did not stop as it should'),
    );
  }

  return {
    async start() {
      await consume(subscriptions.filter((each) => !isCallbacks(each)));
      // Apart: what runs and questions wait for must reach them however many there are.
      await consume(subscriptions.filter(isCallbacks));
    },
    drain,
    async close() {
      drain();
      running.end();
      await stopping;
    },
  };
}

const keyOf = ({ action }: ActionDelivery): string =>
  `${action.tenant_id} ${action.action_type} ${action.action_id}`;

/** The same action, delivered again while it is worked on, is set aside: it is answered once it is known how. */
function oneAtATime(work: Listener): Listener {
  const open = new Set<string>();
  /** What goes on when the action before it is done, by key; oldest first. */
  const waiting = new Map<string, Set<() => void>>();

  function next(key: string): void {
    const [grant] = waiting.get(key) ?? [];
    if (!grant) return;
    drop(key, grant);
    grant();
  }
  function drop(key: string, grant: () => void): boolean {
    const others = waiting.get(key);
    const wasThere = others?.delete(grant) === true;
    if (others?.size === 0) waiting.delete(key);
    return wasThere;
  }
  function aside(key: string): SetAside {
    const { promise: granted, resolve } = Promise.withResolvers<void>();
    const others = waiting.get(key) ?? new Set();
    waiting.set(key, others.add(resolve));
    const leave = (): void => {
      if (!drop(key, resolve) && !open.has(key)) next(key);
    };
    return new SetAside({ granted, leave });
  }

  return async function listener(delivery): Promise<void> {
    if (!delivery.idGiven) return work(delivery);
    const key = keyOf(delivery);
    if (open.has(key)) throw aside(key);
    open.add(key);
    try {
      await work(delivery);
    } finally {
      open.delete(key);
      next(key);
    }
  };
}

/** A node may have died between the answer and its acknowledgement: then that answer holds. */
async function answerDead(replies: Replies, request: ActionRequest, error: ErrorData): Promise<void> {
  const before = await replies.stored(request);
  if (before && (await replies.repeat(request, before))) return;
  // Not stored as the answer of its action, which may be sent anew from the dead list.
  await replies.store(replies.make({ ...request, answers: undefined }, 'dead', errorReply(error)));
}

// --- What is performed -----------------------------------------------------------------------------------------

interface PerformDeps extends ActionWorkerDeps {
  readonly replies: Replies;
  readonly pauses: Abortable;
  readonly running: Abortable;
}

type Perform = (delivery: ActionDelivery, request: ActionRequest, command: Command) => Promise<void>;

function createPerform(deps: PerformDeps): Perform {
  const { transport, executions, invalidateAgent, places } = deps;
  const performRun = createActionRuns(deps);
  const performBatch = createActionBatches({ ...deps, performRun });
  const answerQuery = createActionQueries({
    ...deps,
    directory: withPlaces(deps.directory, places),
    signal: deps.running.signal,
  });
  const cancel = createCancel(deps);
  const push = createPush(deps);

  return async function perform(delivery, request, command) {
    switch (command.type) {
      case 'run': {
        const run = runRequest(request, command);
        const { sessionId, caller } = run.turn;
        return places.within(delivery, { ...caller, sessionId, turn: run.turn }, async (started) => {
          await performRun(run, (turn, options) => executions.start(turn, options).finally(started));
        });
      }
      case 'batch': {
        const { tenant_id: tenantId, tenant_tier: tier } = request.action;
        const wanting = { tenantId, tier, sessionId: taskOf(request.action), turn: undefined };
        return places.within(delivery, wanting, () => performBatch(request, command));
      }
      case 'cancel':
        return cancel(request, command);
      case 'status':
      case 'agent-config':
      case 'history':
      case 'context':
        return answerQuery(request, command);
      case 'invalidate':
        return invalidateAgent(request.action.tenant_id, command.agentId);
      case 'replied':
        transport.replied(request.action);
        return;
      case 'push':
        return push(delivery, command);
    }
  };
}

/** Cancelled twice is cancelled once; what is stored is what was answered. A run without a place is one that waits. */
function createCancel({ directory, replies, running, places }: PerformDeps) {
  return async (request: ActionRequest, { taskId }: CommandOf<'cancel'>): Promise<void> => {
    // A run must be stopped also while the store is away.
    const before = await replies.stored(request, 'cancelled').catch(() => null);
    if (before && (await replies.repeat(request, before))) return;
    await running.of(places.hasten(request.action.tenant_id, taskId));
    const reply = await directory.cancel(request.action.tenant_id, taskId);
    const about = { taskId: request.action.task_id ?? taskId };
    if (reply.ok) {
      const data = {
        task_id: reply.taskId,
        status: replyStatus(reply.status),
        abort_ms: Math.ceil(reply.abortMs),
      };
      const body = { type: 'execution.callback', data } as const;
      return replies.store(replies.make(request, 'cancelled', body, about));
    }
    if (NOT_ITS_FAULT.has(reply.error.code)) throw new RefusalError(reply.error);
    await replies.send(request, errorReply(reply.error, { task_id: taskId }), about);
  };
}

/** A push that was shown before is not shown again. */
function createPush({ directory }: PerformDeps) {
  const pushed = new LRUCache<string, true>({ max: MAX_PUSHED });
  return (delivery: ActionDelivery, { sessions, frame }: CommandOf<'push'>): void => {
    const key = keyOf(delivery);
    if (delivery.idGiven && pushed.has(key)) return;
    directory.push(delivery.action.tenant_id, sessions, frame);
    if (delivery.idGiven) pushed.set(key, true);
  };
}

// --- What is taken ---------------------------------------------------------------------------------------------

/**
 * Refuses at once what no delivery will do better with: what no node works on, what names a queue that it may not name,
 * and data that does not fit. `taken`: the queues that the node takes from.
 */
const readWork =
  (taken: ReadonlySet<string>, commands: WeakMap<DomainAction, Command>): ReadMessage =>
  (raw, _queue, nowMs, newId) => {
    const parsed = parseDomainAction(raw, nowMs, newId);
    if (!parsed.ok) return parsed;
    const problem = callbackProblem(parsed.action, taken);
    if (problem !== null) return { ok: false, error: refusal('FORBIDDEN', { message: problem }) };
    const read = readCommand(parsed.action);
    if (!read.ok) return read;
    commands.set(parsed.action, read.command);
    return parsed;
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
