/** Limits that several nodes share: what each asks of the table from which tokens and slots are leased. */
import type { TenantId } from '../domain/ids.ts';
import type { LeaseAnswer, LeaseQuestion } from '../domain/leases.ts';

/** Of which of a tenant's limits: requests of the minute (tokens), executions and sockets at once (slots). */
export type LimitKind = 'minute' | 'executions' | 'sockets';

/** `asked` grows with each question of a boot, so that one which comes late can not undo a later one. */
export interface LimitQuestion extends LeaseQuestion {
  readonly tenantId: TenantId;
  readonly kind: LimitKind;
  readonly asked: number;
}

/**
 * The table of limits. What the nodes that are not dead hold of a limit, and what is left of it, is never more than the
 * limit; what a dead node held is free with its burial.
 */
export interface LimitTable {
  /** The answers in the order of the questions. Rejects where the database is away: what was given then is not known. */
  lease(questions: readonly LimitQuestion[]): Promise<readonly LeaseAnswer[]>;
}

/** The open sockets of tenants, on this node or on all. */
export interface SocketSlots {
  /**
   * Takes one of the `most` sockets that a tenant may have. Resolves to what gives it back, or to undefined where all are
   * taken; in the same tick where it need not ask. Rejects with STORE_UNAVAILABLE where nobody can say.
   */
  take(tenantId: TenantId, most: number): Taken | Promise<Taken>;
  /** Tenants with sockets on this node. */
  tenants(): number;
  close(): void;
}

type Taken = (() => void) | undefined;
