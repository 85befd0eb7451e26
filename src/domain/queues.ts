/** Names of queues (PROTOCOL 4), and what consumers take from them. */
import { z } from 'zod';
import { type TenantId, tenantIdSchema } from './ids.ts';
import { TIER_TABLE, TIERS, type Tier, type TierTable } from './tiers.ts';

const MAX_QUEUE_NAME = 512;

/** A Redis key without spaces or control characters, as `callback_queue` allows them. */
export const queueNameSchema = z
  .string()
  .max(MAX_QUEUE_NAME)
  .regex(/^[\x21-\x7e]+$/, 'must be printable, without spaces')
  .brand<'QueueName'>();
export type QueueName = z.infer<typeof queueNameSchema>;

const named = (text: string): QueueName => queueNameSchema.parse(text);

export const PRIORITIES = ['high_priority', 'default'] as const;
export type Priority = (typeof PRIORITIES)[number];
export type ManagementTopic = 'tasks' | 'validation' | 'templates' | 'notifications';
export type ExternalService = 'management' | 'conversation' | 'embedding' | 'query' | 'tool_registry';

export const workQueue = (tier: Tier, priority: Priority): QueueName =>
  named(`execution_service:${tier}:${priority}`);
export const callbackQueue = (tier: Tier): QueueName => named(`agent_execution_service:${tier}:callbacks`);
export const orchestratorQueue = (tenantId: string): QueueName => named(`orchestrator:${tenantId}:callback`);
export const managementQueue = (topic: ManagementTopic, tenantId: string): QueueName =>
  named(`agent-management.${topic}.${tenantId}`);
export const serviceQueue = (service: ExternalService, tier: Tier): QueueName =>
  named(`${service}_service:${tier}:default`);
/** Where one request's reply is awaited; `service` is the one that asks. */
export const responseQueue = (service: string, actionType: string, correlationId: string): QueueName =>
  named(`${service}:responses:${actionType}:${correlationId}`);
/** What other nodes forward to this one. */
export const inboxQueue = (nodeId: string): QueueName => named(`nooble:inbox:${nodeId}`);
/** Replies to whatever one start of a node asked; `holder` names that start. */
export const repliesQueue = (holder: string): QueueName => named(`nooble:replies:${holder}`);
export const deadQueue = (queue: string): string => `${queue}:dead`;

/** Whether what is sent there is a reply that nobody may ever fetch: it must expire. */
export const isReplyQueue = (queue: string): boolean =>
  queue.startsWith('nooble:replies:') || queue.includes(':responses:');
/** How long a reply waits for its reader (PROTOCOL 4). */
export const REPLY_TTL_S = 300;

const MANAGEMENT = 'agent-management.';
const TAKEN_TOPIC = /^agent-management\.(?:tasks|validation|templates)\.(.+)$/;

/** The tenant whose messages to agent management wait there; null for other queues, dead lists among them. */
export function managementTenant(queue: string): TenantId | null {
  if (queue.endsWith(deadQueue(''))) return null;
  return tenantIdSchema.safeParse(TAKEN_TOPIC.exec(queue)?.[1]).data ?? null;
}

/** Whether what is sent there are notices that perhaps nobody reads: the newest are kept, for a while. */
export const isNoticeQueue = (queue: string): boolean => queue.startsWith(`${MANAGEMENT}notifications.`);
export const MAX_UNREAD_NOTICES = 1_000;
export const NOTICE_TTL_S = 86_400;

/** Who answers at a queue, for a circuit breaker: the service, or the node behind an inbox. */
export const serviceOf = (queue: string): string =>
  queue.startsWith('nooble:') ? queue : (/^[^:.]+/.exec(queue)?.[0] ?? queue);

// --- Redelivery ----------------------------------------------------------------------------------------------

/** Deliveries of one action before it counts as poison. */
export const MAX_DELIVERIES = 3;

/** What becomes of an action whose receiver failed; `deliveries` counts the one that failed just now. */
export const afterFailure = (deliveries: number): 'redeliver' | 'dead' =>
  deliveries >= MAX_DELIVERIES ? 'dead' : 'redeliver';

// --- What is taken from ----------------------------------------------------------------------------------------

/**
 * A queue to take from. Groups (tiers) share the node by `weight`, the queues of a group share its part by `share`:
 * a thousand tenants' queues in one group get no more than the group.
 */
export interface Subscription {
  readonly queue: QueueName;
  readonly group: string;
  readonly weight: number;
  readonly share: number;
}

/** High priority goes first, but not always: a tenant that calls everything urgent must not stop its whole tier. */
const SHARES: Readonly<Record<Priority, number>> = { high_priority: 16, default: 1 };

/** Queues that begin alike and are found by themselves, as tenants' are: nobody could list them beforehand. */
export interface QueuePattern {
  /** Without characters that mean something in a Redis pattern. */
  readonly prefix: string;
  /** Null: a queue that only looks like one of them. */
  readonly subscription: (queue: QueueName) => Subscription | null;
}

/** The subscription of a queue that one of the patterns matches; null where none does. */
export const patternSubscription = (
  patterns: readonly QueuePattern[],
  queue: QueueName,
): Subscription | null =>
  patterns.find(({ prefix }) => queue.startsWith(prefix))?.subscription(queue) ?? null;

/** What tenants want of agent management. All tenants alike: who puts many there waits for those who put few. */
export const managementPattern: QueuePattern = {
  prefix: MANAGEMENT,
  subscription: (queue) =>
    managementTenant(queue) === null ? null : { queue, group: MANAGEMENT, weight: 1, share: 1 },
};

/** A queue that counts among its tier's. */
export const tierSubscription = (
  queue: QueueName,
  tier: Tier,
  share = 1,
  table: TierTable = TIER_TABLE,
): Subscription => ({
  queue,
  group: tier,
  weight: table[tier].weight,
  share,
});

/** What every node takes from, the first to be served first where all else is equal. */
export const nodeSubscriptions = (table: TierTable = TIER_TABLE): readonly Subscription[] =>
  [...TIERS]
    .reverse()
    .flatMap((tier) => [
      ...PRIORITIES.map((priority) =>
        tierSubscription(workQueue(tier, priority), tier, SHARES[priority], table),
      ),
      tierSubscription(callbackQueue(tier), tier, SHARES.high_priority, table),
    ]);
