/** The sockets of tenants where several nodes share the limit: slots that this node has leased, and who waits for one. */
import { refusalError } from '../../src/domain/errors.ts';
import { emptyFifo, type Fifo, items, pushed } from '../../src/domain/fifo.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import {
  answeredLease,
  askFor,
  giveBack,
  heldOf,
  LEASE_KEEP_MS,
  type Lease,
  type LeaseAnswer,
  type LeaseQuestion,
  lookedAt,
  NO_LEASE,
  occupied,
  slotTerms,
  vacated,
} from '../../src/domain/leases.ts';
import type { SocketSlots } from '../../src/ports/limits.ts';
import type { LeaseKeeper } from './lease-keeper.ts';

/** Handshakes of a tenant that wait for an answer; more are refused. */
const MAX_WAITING = 10_000;

interface WaitingSocket {
  readonly resolve: (release: (() => void) | undefined) => void;
  readonly reject: (error: unknown) => void;
}

interface TenantSockets {
  lease: Lease;
  /** As the last caller's tier says. */
  most: number;
  waiting: Fifo<WaitingSocket>;
  timer: NodeJS.Timeout | undefined;
}

/** One that could not be told waits, and is told with the next answer: the limit is asked once for all that wait. */
export function createSocketSlots(keeper: LeaseKeeper): SocketSlots {
  const tenants = new Map<TenantId, TenantSockets>();
  let closed = false;

  function put(tenantId: TenantId, found: TenantSockets, [lease, question]: Asked): void {
    found.lease = lease;
    if (question) void ask(tenantId, found, question);
    if (heldOf(lease) > 0 && !found.timer && !closed) look(tenantId, found);
    if (!lease.asking && heldOf(lease) === 0 && !found.timer) tenants.delete(tenantId);
  }

  async function ask(tenantId: TenantId, found: TenantSockets, question: LeaseQuestion): Promise<void> {
    const answer = await keeper.ask(tenantId, 'sockets', question);
    found.lease = answeredLease(found.lease, answer);
    settle(tenantId, found, answer);
    put(tenantId, found, needs(found));
  }

  /** Those who wait have one each as far as it goes; the others are told, or wait where more came than were asked for. */
  function settle(tenantId: TenantId, found: TenantSockets, answer: LeaseAnswer | null): void {
    const waiting = items(found.waiting);
    found.waiting = emptyFifo;
    for (const one of waiting) {
      if (found.lease.free > 0) one.resolve(occupy(tenantId, found));
      else if (!answer) one.reject(refusalError('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }));
      else if (answer.retryAfterMs !== null) one.resolve(undefined);
      else found.waiting = pushed(found.waiting, one);
    }
  }

  function needs({ lease, most, waiting }: TenantSockets): Asked {
    const terms = slotTerms(most);
    if (waiting.size > 0) return askFor(lease, terms, waiting.size);
    return terms.keeps ? [lease, null] : giveBack(lease, terms, lease.free);
  }

  function look(tenantId: TenantId, found: TenantSockets): void {
    found.timer = setTimeout(() => {
      found.timer = undefined;
      put(tenantId, found, lookedAt(found.lease, slotTerms(found.most)));
    }, LEASE_KEEP_MS).unref();
  }

  function occupy(tenantId: TenantId, found: TenantSockets): () => void {
    let isOpen = true;
    found.lease = occupied(found.lease);
    return () => {
      if (!isOpen) return;
      isOpen = false;
      found.lease = vacated(found.lease);
      if (!closed) put(tenantId, found, needs(found));
    };
  }

  return {
    take(tenantId, most) {
      const found = tenants.get(tenantId) ?? newSockets(most);
      tenants.set(tenantId, found);
      found.most = most;
      if (found.lease.used >= most) return undefined;
      if (found.waiting.size === 0 && found.lease.free > 0) {
        const release = occupy(tenantId, found);
        put(tenantId, found, [found.lease, null]);
        return release;
      }
      if (found.waiting.size >= MAX_WAITING) return undefined;
      return new Promise((resolve, reject) => {
        found.waiting = pushed(found.waiting, { resolve, reject });
        put(tenantId, found, needs(found));
      });
    },
    tenants: () => [...tenants.values()].filter(({ lease }) => lease.used > 0).length,
    close() {
      closed = true;
      for (const { timer } of tenants.values()) clearTimeout(timer);
    },
  };
}

type Asked = readonly [Lease, LeaseQuestion | null];

const newSockets = (most: number): TenantSockets => ({
  ...{ lease: NO_LEASE, most, waiting: emptyFifo, timer: undefined },
});
