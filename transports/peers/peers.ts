/** Asks the services beside a node: inside the process or over the transport, each as the settings say. */
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { RefusalError, refusalError } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import { replyRefusal } from '../../src/domain/peer-replies.ts';
import { type QueueName, responseQueue, serviceQueue } from '../../src/domain/queues.ts';
import type { Tier } from '../../src/domain/tiers.ts';
import {
  type PeerData,
  type PeerRequest,
  type PeerRequestType,
  type Peers,
  SERVICE_OF,
} from '../../src/ports/peers.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';
import type { ActionFormat, Transport } from '../../src/ports/transport.ts';

/** Answers a request inside the process, with what the service would have written as `data`. */
type EmbeddedAnswer = (request: PeerRequest, signal: AbortSignal) => Promise<PeerData>;
export type Embedded = Readonly<Record<PeerRequestType, EmbeddedAnswer>>;

interface PeersOptions {
  readonly modes: Peers['modes'];
  readonly transport: Pick<Transport, 'request'>;
  readonly format: ActionFormat;
  /** Where the request names none. */
  readonly timeoutMs: number;
  readonly tierOf: (tenantId: TenantId) => Promise<Tier>;
  readonly embedded: Embedded;
  readonly clock: Clock;
  readonly log: Log;
  readonly newId: () => string;
  /** The asking node, in each request's metadata. */
  readonly nodeName: string;
}

/** The name under which this node asks: the service that the old ones know. */
const ASKER = 'agent_execution_service';

/**
 * Each of these requests has a reply queue of its own. Queries and embeddings are answered on the queue that all
 * requests of a node share, or on the tier's queue of callbacks (Transport.replied).
 */
const OWN_REPLY_QUEUE: ReadonlySet<PeerRequestType> = new Set([
  'management.get_agent_config',
  'conversation.get_history',
]);

/** How late the transport's own deadline may be. */
const TRANSPORT_LATE_MS = 100;

/**
 * Asks services. No request is sent twice: whether to ask again is the asker's decision. The reply to a request that
 * was called off, or is late, is dropped.
 */
export function createPeers(options: PeersOptions): Peers {
  const { modes, transport, format, embedded, clock, log, newId, nodeName } = options;

  async function remote(request: PeerRequest, timeoutMs: number): Promise<PeerData> {
    const startedAt = performance.now();
    const tier = request.tier ?? (await options.tierOf(request.tenantId));
    const leftMs = Math.max(1, timeoutMs - (performance.now() - startedAt));
    const name = request.type.slice(request.type.indexOf('.') + 1);
    const replyQueue = (id: string): QueueName => responseQueue(ASKER, name, id);
    const { data } = await transport.request(
      serviceQueue(SERVICE_OF[request.type], tier),
      actionOf(request, tier, timeoutMs),
      { timeoutMs: leftMs, format, ...(OWN_REPLY_QUEUE.has(request.type) ? { replyQueue } : {}) },
    );
    return data;
  }

  const actionOf = (request: PeerRequest, tier: Tier, timeoutMs: number): DomainAction => ({
    action_id: newId(),
    action_type: request.type,
    task_id: request.taskId,
    tenant_id: request.tenantId,
    tenant_tier: tier,
    session_id: request.sessionId,
    user_id: request.userId,
    agent_id: request.agentId,
    trace_id: request.traceId,
    data: { ...request.data },
    metadata: { source: ASKER, node: nodeName },
    timeout: timeoutMs / 1000,
    timestamp: new Date(clock.now()).toISOString(),
  });

  return {
    modes,
    async ask(request) {
      const timeoutMs = request.timeoutMs ?? options.timeoutMs;
      const isRemote = modes[SERVICE_OF[request.type]] === 'redis';
      const work = (signal: AbortSignal): Promise<PeerData> =>
        isRemote ? remote(request, timeoutMs) : embedded[request.type](request, signal);
      // The transport's own deadline comes first: it counts who does not answer.
      const waitMs = isRemote ? timeoutMs + TRANSPORT_LATE_MS : timeoutMs;
      const data = await within(work, request, waitMs).catch((error: unknown) => {
        if (error instanceof RefusalError) throw error;
        log.error({ err: error, type: request.type, tenant_id: request.tenantId }, 'a peer broke down');
        throw refusalError('INTERNAL');
      });
      const refused = replyRefusal(data);
      if (refused) throw new RefusalError(refused);
      return data;
    },
  };
}

/** Runs `work` until it is done, late or called off; in the last two cases its signal is aborted. */
async function within<T>(
  work: (signal: AbortSignal) => Promise<T>,
  { type, signal }: PeerRequest,
  timeoutMs: number,
): Promise<T> {
  if (signal?.aborted) throw calledOff();
  const own = new AbortController();
  let stop = (): void => {};
  let timer: NodeJS.Timeout | undefined;
  const ended = new Promise<never>((_, reject) => {
    const end = (error: RefusalError): void => {
      reject(error);
      own.abort();
    };
    stop = () => end(calledOff());
    timer = setTimeout(() => end(late(type, timeoutMs)), timeoutMs);
  });
  signal?.addEventListener('abort', stop, { once: true });
  try {
    return await Promise.race([work(own.signal), ended]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  }
}

const calledOff = (): RefusalError => refusalError('INTERRUPTED', { message: 'The request was called off.' });

const late = (type: PeerRequestType, timeoutMs: number): RefusalError =>
  refusalError('PEER_TIMEOUT', {
    message: `${SERVICE_OF[type]}_service did not answer within ${Math.round(timeoutMs)} ms.`,
  });
