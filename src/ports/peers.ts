/** The services that a node may have beside it (PROTOCOL 4), asked in one way whether they live here or elsewhere. */
import type { AgentId, SessionId, TaskId, TenantId, UserId } from '../domain/ids.ts';
import type { Passage } from '../domain/peer-replies.ts';
import type { ExternalService } from '../domain/queues.ts';
import type { Tier } from '../domain/tiers.ts';

/** What the node asks of services, each by one of them (`SERVICE_OF`). */
export type PeerRequestType =
  | 'management.get_agent_config'
  | 'conversation.get_history'
  | 'embedding.request'
  | 'query.request'
  | 'tool.execute';

/** Who answers what. */
export const SERVICE_OF: Readonly<Record<PeerRequestType, ExternalService>> = {
  'management.get_agent_config': 'management',
  'conversation.get_history': 'conversation',
  'embedding.request': 'embedding',
  'query.request': 'query',
  'tool.execute': 'tool_registry',
};

export interface PeerRequest {
  readonly type: PeerRequestType;
  readonly tenantId: TenantId;
  /** As far as the asker knows; undefined: the tenant's own, or the node's default. */
  readonly tier?: Tier | undefined;
  readonly sessionId?: SessionId | undefined;
  readonly userId?: UserId | undefined;
  readonly agentId?: AgentId | undefined;
  readonly taskId?: TaskId | undefined;
  readonly traceId?: string | undefined;
  readonly data: PeerData;
  /** From the call to the reply; default: PEER_TIMEOUT_SECONDS. */
  readonly timeoutMs?: number | undefined;
  /** Aborted: nobody waits for the reply any more. */
  readonly signal?: AbortSignal | undefined;
}

export type PeerData = Readonly<Record<string, unknown>>;

/** `embedded`: answered inside this process. `redis`: asked over the transport. */
export type PeerMode = 'embedded' | 'redis';

export interface Peers {
  readonly modes: Readonly<Record<ExternalService, PeerMode>>;
  /**
   * Resolves to the reply's `data`, as the service wrote it: whoever reads it parses it (peer-replies.ts). Rejects
   * with a RefusalError: the one that the service answered (`success: false`, `error`), PEER_TIMEOUT,
   * TRANSPORT_UNAVAILABLE, INTERRUPTED once the signal is aborted, or INTERNAL where a service broke down.
   */
  ask(request: PeerRequest): Promise<PeerData>;
}

/** Texts that can be looked up, by tenant and collection: what the embedded query service reads. */
export interface Collections {
  /**
   * At most `limit` passages, best first. A collection that is not there has none. Rejects with a RefusalError when
   * aborted (INTERRUPTED), too slow (PEER_TIMEOUT) or too many wait (OVERLOADED), and for names that are none.
   */
  query(
    tenantId: TenantId,
    question: {
      readonly text: string;
      readonly collections: readonly string[];
      readonly limit: number;
      readonly signal?: AbortSignal | undefined;
    },
  ): Promise<readonly Passage[]>;
  /** Ends the worker; whoever waits is refused. Safe to call twice. */
  close(): Promise<void>;
}

/** Texts as vectors: what the embedded embedding service answers with. */
export interface Embeddings {
  readonly model: string;
  /** One vector a text, all of the same length. Rejects with a RefusalError (MODEL_…, INTERRUPTED). */
  embed(texts: readonly string[], signal?: AbortSignal): Promise<readonly (readonly number[])[]>;
}
