/** Requests that wait for their replies: correlation, deadline, circuit breakers, and the replies that nobody wants. */
import { randomUUID } from 'node:crypto';
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import { type QueueName, serviceOf } from '../../src/domain/queues.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import type { RequestOptions, TransportMeter } from '../../src/ports/transport.ts';
import type { DecodedAction } from '../wire/codec.ts';
import type { BodyReader } from './body-reader.ts';
import { type Circuit, createCircuits } from './circuit-breaker.ts';

/** Requests of one node that may wait at once. */
const MAX_WAITING = 50_000;
/** Reply queues of single requests that are remembered. */
export const MAX_REPLY_QUEUES = 60_000;

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
type Send = (sending: Sending) => Promise<void>;

export interface Requests {
  /**
   * Runs one request: `send` puts it on its way.
   * Rejects like Transport.request, and as `send` does.
   */
  run(queue: QueueName, action: DomainAction, options: RequestOptions, send: Send): Promise<DomainAction>;
  /** Hands a reply to who waits for it. `only`: the request whose own reply queue it came on. */
  reply(body: Uint8Array, only?: string): void;
  /** As Transport.replied. */
  replied(reply: DomainAction): boolean;
  /** Refuses all that wait. */
  close(): void;
}

interface RequestDeps {
  readonly log: Log;
  readonly meter: TransportMeter;
  readonly bodies: BodyReader;
}

export function createRequests(sharedQueue: QueueName, { log, meter, bodies }: RequestDeps): Requests {
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
    // First the circuit: whoever hears of it may ask anew at once.
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

  const matched = createMatching(waiting, settled, log, meter);
  const malformed = (problem: string): void => {
    meter.counted('reply.malformed', 1);
    log.warn({ problem }, 'a reply is malformed');
  };
  const received = (decoded: DecodedAction, only: string | undefined): void => {
    if (!decoded.ok) return malformed(decoded.error.message);
    const { action: reply } = decoded;
    // On a reply queue for one request a reply need not say what it answers; but it must not say something else.
    const correlationId = reply.correlation_id ?? only;
    const wanted = only === undefined || correlationId === only ? correlationId : undefined;
    matched(reply, wanted);
  };

  return {
    run(queue, action, options, send) {
      const circuit = circuitOf(serviceOf(queue), action);
      return circuit.isClosed()
        ? ask(queue, action, options, send, circuit)
        : circuit.probe(() => ask(queue, action, options, send, undefined));
    },
    reply(body, only) {
      const decoded = bodies.readReply(body);
      if (!(decoded instanceof Promise)) return received(decoded, only);
      decoded.then(
        (each) => received(each, only),
        (error: unknown) => malformed(String(error)),
      );
    },
    replied: (reply) => matched(reply, reply.correlation_id),
    close() {
      for (const [correlationId, pending] of [...waiting]) refuse(correlationId, pending, closed());
      deadlines.stop();
    },
  };
}

/** Answers the request of that correlation id; false, and a record of why, where there is none. */
type Matching = (reply: DomainAction, correlationId: string | undefined) => boolean;

function createMatching(
  waiting: Map<string, Pending>,
  settled: Settled,
  log: Log,
  meter: TransportMeter,
): Matching {
  const record = (kind: 'late' | 'foreign' | 'duplicate', reply: DomainAction): void => {
    meter.counted(`reply.${kind}`, 1);
    const { action_type: type, correlation_id: correlationId } = reply;
    log.warn({ kind, type, correlation_id: correlationId }, 'a reply that nobody waits for');
  };

  return (reply, correlationId) => {
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
}

export const closed = (): RefusalError =>
  new RefusalError(refusal('TRANSPORT_UNAVAILABLE', { message: 'The message transport is closed.' }));

const OVERLOADED = refusal('OVERLOADED');
const CONFLICT = refusal('CONFLICT', { message: 'A request with this correlation_id waits.' });

const timedOut = (queue: string, timeoutMs: number): RefusalError =>
  new RefusalError(
    refusal('PEER_TIMEOUT', { message: `${serviceOf(queue)} did not answer within ${timeoutMs} ms.` }),
  );

type End = 'answered' | 'expired';

/** Requests that are remembered at least. */
const MIN_SETTLED = 10_000;

/**
 * In the order in which they ended. An index is made when somebody asks, which is rare: a Map that is filled for
 * nothing costs every request 2 µs.
 */
interface Generation {
  readonly ids: string[];
  readonly ends: End[];
  /** The first of them, as many as there were when somebody asked last. */
  readonly index: Map<string, End>;
  indexed: number;
}

const emptyGeneration = (): Generation => ({ ids: [], ends: [], index: new Map(), indexed: 0 });

interface Settled {
  add(id: string, end: End): void;
  /** How the request with that id ended last; undefined where none did, or long ago. */
  endOf(id: string): End | undefined;
}

function createSettled(): Settled {
  // Two generations: to drop the oldest one by one would cost more.
  let current = emptyGeneration();
  let before = emptyGeneration();
  return {
    add(id, end) {
      if (current.ids.length >= MIN_SETTLED) {
        before = current;
        current = emptyGeneration();
      }
      current.ids.push(id);
      current.ends.push(end);
    },
    endOf: (id) => endIn(current, id) ?? endIn(before, id),
  };
}

function endIn(generation: Generation, id: string): End | undefined {
  const { ids, ends, index } = generation;
  for (let at = generation.indexed; at < ids.length; at += 1) {
    const [known, end] = [ids[at], ends[at]];
    if (known !== undefined && end !== undefined) index.set(known, end);
  }
  generation.indexed = ids.length;
  return index.get(id);
}

/** How much later than asked a deadline may be noticed. */
const TICK_MS = 20;

interface Deadlines {
  /** Something was added to what waits until then, as performance.now() tells it. */
  added(deadlineMs: number): void;
  stop(): void;
}

/** `expire` is called for what is overdue, and takes it out of `waiting`. */
function createDeadlines<T extends { readonly deadlineMs: number }>(
  waiting: ReadonlyMap<string, T>,
  expire: (id: string, overdue: T) => void,
): Deadlines {
  let earliestMs = Number.POSITIVE_INFINITY;
  let ticking: NodeJS.Timeout | undefined;

  const stop = (): void => {
    clearInterval(ticking);
    ticking = undefined;
    earliestMs = Number.POSITIVE_INFINITY;
  };
  const added = (deadlineMs: number): void => {
    if (deadlineMs < earliestMs) earliestMs = deadlineMs;
    ticking ??= setInterval(tick, TICK_MS);
  };
  const tick = (): void => {
    if (waiting.size === 0) return stop();
    const now = performance.now();
    if (now < earliestMs) return;
    earliestMs = Number.POSITIVE_INFINITY;
    for (const [id, each] of waiting) {
      if (each.deadlineMs <= now) expire(id, each);
      else if (each.deadlineMs < earliestMs) earliestMs = each.deadlineMs;
    }
  };
  return { added, stop };
}
