/** Leaves alone for a while what leaves requests unanswered: what one tenant asks of a service, or the service itself. */
import {
  BrokenCircuitError,
  type CircuitBreakerPolicy,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  handleWhen,
} from 'cockatiel';
import { LRUCache } from 'lru-cache';
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import type { TransportMeter } from '../../src/ports/transport.ts';

/** Requests in a row that a service left unanswered before it is left alone, and for how long. */
const MAX_TIMEOUTS = 5;
const OPEN_MS = 5_000;
/** Services, and what is asked of them, with a circuit; beyond, the one least recently asked is forgotten. */
const MAX_CIRCUITS = 10_000;

/**
 * A circuit. While it is closed, requests run beside the policy and only tell it how they ended: its
 * wrapping costs a request four promises, and it has nothing to decide.
 */
export interface Circuit {
  isClosed(): boolean;
  /** A request begun while it was closed was answered. */
  answered(): void;
  /** A request begun while it was closed was not answered in time. Resolves when that is noted. Never rejects. */
  timedOut(error: RefusalError): Promise<void>;
  /** Runs a request through the policy: not at all while it is open, or as the probe that closes it. */
  probe(work: () => Promise<DomainAction>): Promise<DomainAction>;
}

/**
 * The circuit of what a tenant asks of a service: one kind of request, of a tool registry one tool. A dead tool of one
 * tenant opens its own circuit and no other's; the service's own opens where several of these go unanswered in a row.
 */
export function createCircuits(
  log: Log,
  meter: TransportMeter,
): (service: string, action: DomainAction) => Circuit {
  const services = new LRUCache<string, Circuit>({
    max: MAX_CIRCUITS,
    memoMethod: (service) => createCircuit(service, {}, log, meter),
  });
  const own = new LRUCache<string, Circuit>({ max: MAX_CIRCUITS });
  return (service, { tenant_id, action_type, data }) => {
    const tool = typeof data.tool === 'string' ? data.tool : undefined;
    const key = JSON.stringify([service, tenant_id, action_type, tool]);
    const known = own.get(key);
    if (known) return known;
    const asked = { tenant_id, action_type, ...(tool === undefined ? {} : { tool }) };
    const circuit = within(() => services.memo(service), createCircuit(service, asked, log, meter));
    own.set(key, circuit);
    return circuit;
  };
}

/** Both have to be closed. Of timeouts in a row, the outer one is told of the first. */
function within(outer: () => Circuit, inner: Circuit): Circuit {
  let isSilent = false;
  const answered = (): void => {
    isSilent = false;
    inner.answered();
    outer().answered();
  };
  return {
    isClosed: () => inner.isClosed() && outer().isClosed(),
    answered,
    async timedOut(error) {
      const isFirst = !isSilent;
      isSilent = true;
      if (isFirst) await outer().timedOut(error);
      await inner.timedOut(error);
    },
    probe(work) {
      if (!inner.isClosed()) return inner.probe(work);
      return outer().probe(work);
    },
  };
}

function createCircuit(service: string, asked: object, log: Log, meter: TransportMeter): Circuit {
  const breaker = new ConsecutiveBreaker(MAX_TIMEOUTS);
  const policy: CircuitBreakerPolicy = circuitBreaker(handleWhen(isTimeout), {
    halfOpenAfter: OPEN_MS,
    breaker,
  });
  policy.onBreak(() => {
    meter.counted('circuit.opened', 1);
    log.warn(
      { service, ...asked, open_ms: OPEN_MS },
      'a service does not answer: it is left alone for a while',
    );
  });
  const isClosed = (): boolean => policy.state === CircuitState.Closed;
  return {
    isClosed,
    // What the policy does after a success in this state.
    answered: () => breaker.success(),
    async timedOut(error) {
      // Otherwise the service has been found silent meanwhile, and its probe decides.
      if (isClosed()) await policy.execute(() => Promise.reject(error)).catch(() => {});
    },
    async probe(work) {
      try {
        return await policy.execute(work);
      } catch (error) {
        if (error instanceof BrokenCircuitError) throw leftAlone(service);
        throw error;
      }
    },
  };
}

const isTimeout = (error: unknown): boolean =>
  error instanceof RefusalError && error.data.code === 'PEER_TIMEOUT';

const leftAlone = (service: string): RefusalError =>
  new RefusalError(
    refusal('PEER_TIMEOUT', {
      message: `${service} has not been answering; it is asked again after a while.`,
      retryAfterMs: OPEN_MS,
    }),
  );
