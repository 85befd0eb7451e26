/** What the actors of a node are made of, and what they offer besides the directory. */
import type { TenantNotice } from '../src/domain/agent-record.ts';
import type { TenantId } from '../src/domain/ids.ts';
import type { Tier } from '../src/domain/tiers.ts';
import type { AgentRunner, AgentSource, Clock, Directory, Log, Metrics, Store } from '../src/ports.ts';
import type { ActorSystem } from './address.ts';
import type { SessionConfig } from './session-state.ts';

export interface SystemOptions extends SessionConfig {
  /** Where other actors of the node live too; made here where it is absent. Closed with the system. */
  readonly actors?: ActorSystem;
  readonly store: Store;
  readonly agents: AgentSource;
  readonly runner: AgentRunner;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly defaultTier: Tier;
  readonly maxExecutions: number;
  readonly deltaWindowMs: number;
  readonly idleMs: number;
}

/**
 * drain(): from now on no new turns; clients are told; resolves when all turns have ended, those cancelled that
 * still ran after `graceMs`; then clients are closed with 1012. close(): stops every actor at once.
 */
export interface System extends Directory {
  /** Sends a notice to every client of its tenant that is attached on this node, at most once. */
  notify(notice: TenantNotice): void;
  /** An operator set a tenant's tier: it holds from the next message on, over what requests name. */
  tierSet(tenantId: TenantId, tier: Tier): void;
  drain(graceMs: number): Promise<void>;
  close(): Promise<void>;
}
