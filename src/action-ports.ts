/** What is kept of actions: which were worked on, what was replied, and what still has to be sent. */
import type { DomainAction } from './domain/domain-action.ts';
import type { TenantId } from './domain/ids.ts';
import type { QueueName } from './domain/queues.ts';
import type { ActionFormat } from './transport-ports.ts';

/**
 * A message that is kept until it was sent: a transactional outbox's entry. Written with what it tells of (Write),
 * sent at least once, in the order in which a queue's entries were kept.
 */
export interface Outgoing {
  readonly tenantId: TenantId;
  /** Unique in the tenant, and `action.action_id` where there is an action: its receivers deduplicate by it. */
  readonly id: string;
  /** The `action_id` that this answers. It outlives the sending: the same action again is answered with it. */
  readonly answers: string | undefined;
  /** Undefined: nobody waits for it; it is kept for `answers` alone. */
  readonly queue: QueueName | undefined;
  readonly format: ActionFormat;
  readonly action: DomainAction | undefined;
}

/** One that has not been sent, by its place in the order. */
export interface Unsent {
  readonly seq: number;
  readonly outgoing: Outgoing;
}

/**
 * The stored side of the outbox; its writes go through Store.commit (`outgoing`, `outgoing-sent`,
 * `outgoing-expired`, and with `turn-ended`). An id that is there already is left as it is.
 */
export interface ActionLog {
  /** What was answered to an action, or null where it is not known to have been worked on. */
  answered(tenantId: TenantId, actionId: string): Promise<Outgoing | null>;
  /** At most `limit` that have a queue and were not sent, of all tenants, those behind `afterSeq`, oldest first. */
  unsent(afterSeq: number, limit: number): Promise<readonly Unsent[]>;
}
