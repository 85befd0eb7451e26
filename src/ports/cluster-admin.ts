/** What an operator asks of the nodes on one database, and tells them: by rows, from anywhere that reaches it. */
import type { SessionId, TenantId } from '../domain/ids.ts';
import type { Boot, NodeState } from './cluster.ts';

/** One start of a node. Times by the database's clock. */
export interface NodeReport {
  readonly boot: Boot;
  readonly nodeId: string;
  readonly state: NodeState;
  readonly version: string;
  readonly startedAtMs: number;
  /** Since its last beat, ms. */
  readonly beatAgeMs: number;
  /** Turns that have not ended. */
  readonly running: number;
  /** Sessions that it has. */
  readonly owned: number;
  /** Of these, those that another node asks for. */
  readonly wanted: number;
  /** Replies and callbacks that it has to send. */
  readonly unsent: number;
}

/** Who has a session. */
export interface SessionReport {
  readonly boot: Boot;
  readonly nodeId: string;
  /** `dead`: whoever is asked next takes the session. */
  readonly state: NodeState;
  readonly epoch: number;
  /** The node that asks for it. */
  readonly wantedBy: Boot | undefined;
}

/** Any method rejects where the database is away. */
export interface ClusterAdmin {
  /** Nodes that are not dead, and those that died within the last ten minutes; the oldest boot first. */
  status(): Promise<readonly NodeReport[]>;
  /** Undefined: no node has it. */
  where(tenantId: TenantId, sessionId: SessionId): Promise<SessionReport | undefined>;
  /** Has a node drain and stop: it reads so with its next beat. Returns its boots that live; none: there is no such node. */
  drain(nodeId: string): Promise<readonly Boot[]>;
  /** Declares a node dead, whatever its beat. Returns the boots that were. */
  bury(nodeId: string): Promise<readonly Boot[]>;
}
