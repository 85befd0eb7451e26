/** Requests that wait for their replies: correlation, deadline, circuit breakers, and the replies that nobody wants. */
import { randomUUID } from 'node:crypto';
import {
  BrokenCircuitError,
  type CircuitBreakerPolicy,
  ConsecutiveBreaker,
  circuitBreaker,
  handleWhen,
} from 'cockatiel';
import type { DomainAction } from '../src/domain/domain-action.ts';
import { RefusalError, refusal } from '../src/domain/errors.ts';
import { type QueueName, serviceOf } from '../src/domain/queues.ts';
import type { Log } from '../src/ports.ts';
import type { RequestOptions, TransportMeter } from '../src/transport-ports.ts';
import { decodeAction } from './codec.ts';

/** Requests of one node that may wait at once. */
const MAX_WAITING = 50_000;
/** Settled requests that are remembered at least, to tell a late reply from a foreign one. */
const MIN_SETTLED = 10_000;
/** Requests in a row that a service left unanswered before it is left alone, and for how long. */
const MAX_TIMEOUTS = 5;
const OPEN_MS = 5_000;
/** Reply lists of single requests that are remembered. */
export const MAX_OWN_LISTS = 60_000;
/** Services with a circuit; beyond, the one that was asked first is forgotten. */
const MAX_CIRCUITS = 1_000;

interface Pending {
  readonly tenantId: string;
  readonly answer: (reply: DomainAction) => void;
  readonly refuse: (error: RefusalError) => void;
}

/** How one request travels. */
export interface Sending {
  readonly action: DomainAction;
  readonly correlationId: string;
  readonly replyQueue: QueueName;
}

export interface Requests {
  /**
   * Runs one request: `send` puts it on its way.
   * Rejects like Transport.request, and as `send` does.
   */
  run(
    queue: QueueName,
    action: DomainAction,
    options: RequestOptions,
    send: (sending: Sending) => Promise<void>,
  ): Promise<DomainAction>;
  /** Hands a reply to who waits for it. `only`: the request whose own list it came on. */
  reply(body: Uint8Array, only?: string): void;
  /** As Transport.replied. */
  replied(reply: DomainAction): boolean;
  /** Refuses all that wait. */
  close(): void;
}

export function createRequests(sharedQueue: QueueName, log: Log, meter: TransportMeter): Requests {
  const waiting = new Map<string, Pending>();
  // Two generations: to look for the oldest in one Map costs more the more were deleted before it.
  let settled = new Map<string, 'answered' | 'expired'>();
  let settledBefore: ReadonlyMap<string, 'answered' | 'expired'> = new Map();
  const circuits = new Map<string, CircuitBreakerPolicy>();

  const circuitOf = (service: string): CircuitBreakerPolicy => {
    const known = circuits.get(service);
    if (known) return known;
    const [oldest] = circuits.size >= MAX_CIRCUITS ? circuits.keys() : [];
    if (oldest !== undefined) circuits.delete(oldest);
    const circuit = circuitBreaker(handleWhen(isTimeout), {
      halfOpenAfter: OPEN_MS,
      breaker: new ConsecutiveBreaker(MAX_TIMEOUTS),
    });
    circuit.onBreak(() => {
      meter.counted('circuit.opened', 1);
      log.warn({ service, open_ms: OPEN_MS }, 'a service does not answer: it is left alone for a while');
    });
    circuits.set(service, circuit);
    return circuit;
  };

  const forget = (correlationId: string, how: 'answered' | 'expired'): void => {
    waiting.delete(correlationId);
    if (settled.size >= MIN_SETTLED) {
      settledBefore = settled;
      settled = new Map();
    }
    settled.set(correlationId, how);
  };

  const ask: Requests['run'] = async (queue, action, options, send) => {
    const correlationId = action.correlation_id ?? randomUUID();
    if (waiting.has(correlationId))
      throw new RefusalError(refusal('CONFLICT', { message: 'A request with this correlation_id waits.' }));
    if (waiting.size >= MAX_WAITING) throw new RefusalError(refusal('OVERLOADED'));
    const replyQueue = options.replyQueue?.(correlationId) ?? sharedQueue;
    const sending = {
      action: { ...action, correlation_id: correlationId, callback_queue: replyQueue },
      correlationId,
      replyQueue,
    };
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<DomainAction>((answer, refuse) => {
        waiting.set(correlationId, { tenantId: action.tenant_id, answer, refuse });
        timer = setTimeout(() => refuse(timedOut(queue, options.timeoutMs)), options.timeoutMs);
        send(sending).catch(refuse);
      });
    } finally {
      clearTimeout(timer);
      if (waiting.has(correlationId)) forget(correlationId, 'expired');
    }
  };

  const record = (kind: 'late' | 'foreign' | 'duplicate', reply: DomainAction): void => {
    meter.counted(`reply.${kind}`, 1);
    const { action_type: type, correlation_id: correlationId } = reply;
    log.warn({ kind, type, correlation_id: correlationId }, 'a reply that nobody waits for');
  };

  /** Answers the request of that correlation id; false, and a record of why, where there is none. */
  const matched = (reply: DomainAction, correlationId: string | undefined): boolean => {
    const pending = correlationId === undefined ? undefined : waiting.get(correlationId);
    if (correlationId === undefined || (pending && pending.tenantId !== reply.tenant_id)) {
      record('foreign', reply);
      return false;
    }
    if (pending) {
      forget(correlationId, 'answered');
      pending.answer(reply);
      return true;
    }
    const how = settled.get(correlationId) ?? settledBefore.get(correlationId);
    record(how === 'answered' ? 'duplicate' : how === 'expired' ? 'late' : 'foreign', reply);
    return false;
  };

  return {
    async run(queue, action, options, send) {
      const service = serviceOf(queue);
      try {
        return await circuitOf(service).execute(() => ask(queue, action, options, send));
      } catch (error) {
        if (error instanceof BrokenCircuitError) throw leftAlone(service);
        throw error;
      }
    },
    reply(body, only) {
      const decoded = decodeAction(body, Date.now(), randomUUID);
      if (!decoded.ok) {
        meter.counted('reply.malformed', 1);
        log.warn({ problem: decoded.error.message }, 'a reply is malformed');
        return;
      }
      const reply = decoded.action;
      // On a list of its own a reply need not say what it answers; but it must not say something else.
      const correlationId = reply.correlation_id ?? only;
      const wanted = only === undefined || correlationId === only ? correlationId : undefined;
      matched(reply, wanted);
    },
    replied: (reply) => matched(reply, reply.correlation_id),
    close() {
      for (const pending of [...waiting.values()]) pending.refuse(closed());
    },
  };
}

export const closed = (): RefusalError =>
  new RefusalError(refusal('TRANSPORT_UNAVAILABLE', { message: 'The message transport is closed.' }));

const isTimeout = (error: unknown): boolean =>
  error instanceof RefusalError && error.data.code === 'PEER_TIMEOUT';

const timedOut = (queue: string, timeoutMs: number): RefusalError =>
  new RefusalError(
    refusal('PEER_TIMEOUT', { message: `${serviceOf(queue)} did not answer within ${timeoutMs} ms.` }),
  );

const leftAlone = (service: string): RefusalError =>
  new RefusalError(
    refusal('PEER_TIMEOUT', {
      message: `${service} has not been answering; it is asked again after a while.`,
      retryAfterMs: OPEN_MS,
    }),
  );
