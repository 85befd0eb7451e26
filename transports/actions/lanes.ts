/** Which queues a node's desk takes from: the tiers' own, and those that older senders write to. */
import { type Lane, nodeLanes, type QueueName, tierLane } from '../../src/domain/queues.ts';
import { type Tier, type TierTable, tierSchema } from '../../src/domain/tiers.ts';

/**
 * `extra`: EXECUTION_EXTRA_QUEUES (`execution:{context_id}:{tier}`). Each counts among the queues of the tier that its
 * last segment names, or of `defaultTier`.
 */
export const deskLanes = (
  extra: readonly QueueName[],
  defaultTier: Tier,
  table: TierTable,
): readonly Lane[] => [
  ...nodeLanes(table),
  ...extra.map((queue) => {
    const named = tierSchema.safeParse(queue.slice(queue.lastIndexOf(':') + 1));
    return tierLane(queue, named.data ?? defaultTier, 1, table);
  }),
];
