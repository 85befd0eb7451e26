/** Requests that wait for their replies: correlation, deadline, circuit breakers, and the replies that nobody wants. */
import { randomUUID } from 'node:crypto';
import type { DomainAction } from '../src/domain/domain-action.ts';
import { RefusalError, refusal } from '../src/domain/errors.ts';
import { type QueueName, serviceOf } from '../src/domain/queues.ts';
import type { Log } from '../src/ports.ts';
import type { RequestOptions, TransportMeter } from '../src/transport-ports.ts';
import { type Circuit, createCircuits } from './circuits.ts';
import { decodeAction } from './codec.ts';
import { createDeadlines } from './deadlines.ts';
import { createSettled } from './settled.ts';

/** Requests of one node that may wait at once. */
const MAX_WAITING = 50_000;
/** Reply lists of single requests that are remembered. */
export const MAX_OWN_LISTS = 60_000;

interface Pending {
  readonly tenantId: string;
  readonly queue: QueueName;
  readonly timeoutMs: number;
  readonly deadlineMs: number;
  /** Undefined where the circuit's policy runs the request, and sees for itself how it ends. */
  readonly circuit: Circuit | undefined;
  readonly answer: (reply: DomainAction) => void;
  readonly refuse: (error: unknown) => void;
}

/** How one request travels. */
export interface Sending {
  readonly action: DomainAction;
  readonly correlationId: string;
  readonly replyQueue: QueueName;
}

/** Puts a request on its way. Rejects, rather than throws, where it cannot. */
export type Send = (sending: Sending) => Promise<void>;

export interface Requests {
  /**
   * Runs one request: `send` puts it on its way.
   * Rejects like Transport.request, and as `send` does.
   */
  run(queue: QueueName, action: DomainAction, options: RequestOptions, send: Send): Promise<DomainAction>;
  /** Hands a reply to who waits for it. `only`: the request whose own list it came on. */
  reply(body: Uint8Array, only?: string): void;
  /** As Transport.replied. */
  replied(reply: DomainAction): boolean;
  /** Refuses all that wait. */
  close(): void;
}

export function createRequests(sharedQueue: QueueName, log: Log, meter: TransportMeter): Requests {
  const waiting = new Map<string, Pending>();
  const settled = createSettled();
  const circuitOf = createCircuits(log, meter);

  const refuse = (correlationId: string, pending: Pending, error: unknown): void => {
    if (waiting.get(correlationId) !== pending) return;
    waiting.delete(correlationId);
    settled.add(correlationId, 'expired');
    pending.refuse(error);
  };

  const deadlines = createDeadlines(waiting, (correlationId, pending: Pending) => {
    const error = timedOut(pending.queue, pending.timeoutMs);
    const { circuit } = pending;
    if (!circuit) return refuse(correlationId, pending, error);
    waiting.delete(correlationId);
    settled.add(correlationId, 'expired');
    // First the circuit: who hears of it may ask again at once.
    void circuit.timedOut(error).then(() => pending.refuse(error));
  });

  const ask = (
    queue: QueueName,
    action: DomainAction,
    options: RequestOptions,
    send: Send,
    circuit: Circuit | undefined,
  ): Promise<DomainAction> => {
    const correlationId = action.correlation_id ?? randomUUID();
    const refused = waiting.has(correlationId) ? CONFLICT : waiting.size >= MAX_WAITING ? OVERLOADED : null;
    if (refused) return Promise.reject(new RefusalError(refused));
    const replyQueue = options.replyQueue?.(correlationId) ?? sharedQueue;
    const asked = { ...action, correlation_id: correlationId, callback_queue: replyQueue };
    const { timeoutMs } = options;
    const deadlineMs = performance.now() + timeoutMs;
    return new Promise((answer, fail) => {
      const tenantId = action.tenant_id;
      const pending: Pending = { tenantId, queue, timeoutMs, deadlineMs, circuit, answer, refuse: fail };
      waiting.set(correlationId, pending);
      deadlines.added(deadlineMs);
      send({ action: asked, correlationId, replyQueue }).catch((error: unknown) => {
        refuse(correlationId, pending, error);
      });
    });
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
      waiting.delete(correlationId);
      settled.add(correlationId, 'answered');
      pending.circuit?.answered();
      pending.answer(reply);
      return true;
    }
    const how = settled.endOf(correlationId);
    record(how === 'answered' ? 'duplicate' : how === 'expired' ? 'late' : 'foreign', reply);
    return false;
  };

  return {
    run(queue, action, options, send) {
      const circuit = circuitOf(serviceOf(queue));
      return circuit.isClosed()
        ? ask(queue, action, options, send, circuit)
        : circuit.probe(() => ask(queue, action, options, send, undefined));
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
      for (const [correlationId, pending] of [...waiting]) refuse(correlationId, pending, closed());
      deadlines.stop();
    },
  };
}

export const closed = (): RefusalError =>
  new RefusalError(refusal('TRANSPORT_UNAVAILABLE', { message: 'The message transport is closed.' }));

const OVERLOADED = refusal('OVERLOADED');
const CONFLICT = refusal('CONFLICT', { message: 'A request with this correlation_id waits.' });

const timedOut = (queue: string, timeoutMs: number): RefusalError =>
  new RefusalError(
    refusal('PEER_TIMEOUT', { message: `${serviceOf(queue)} did not answer within ${timeoutMs} ms.` }),
  );
