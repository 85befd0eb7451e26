/** Messages to keep, a transport that fails on command, and a store that does, for tests of the outbox relay. */
import type { TestContext } from 'node:test';
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import type { QueueName } from '../../src/domain/queues.ts';
import type { ReplySpec } from '../../src/domain/reply-spec.ts';
import type { TurnRecord } from '../../src/domain/turn.ts';
import { createRelay, type RelayDeps } from '../../src/outbox/relay.ts';
import type { Relay } from '../../src/ports/outbox.ts';
import type { Outgoing, Store, Write } from '../../src/ports/store.ts';
import type { Transport } from '../../src/ports/transport.ts';
import { createMemoryTransport } from '../../transports/queue/memory.ts';
import { leakFree } from '../support/leaks.ts';
import { collectingLog, quiet } from '../support/quiet.ts';
import { memoryStore } from '../support/stores.ts';
import { collecting, counting, queue as queueNamed } from '../support/transport.ts';

/** Short waits, so that tests need not wait long. */
export const QUICK = { backoffMs: 5, maxBackoffMs: 40, ackMs: 2 };

/** A message that says `n`, to a queue of that name. */
export function outgoing(n: number, queue = 'q', more: Partial<Outgoing> = {}): Outgoing {
  const tenantId = more.tenantId ?? tenantIdSchema.parse('acme');
  const id = more.id ?? `${queue}-${n}`;
  const action: DomainAction = {
    action_id: id,
    action_type: 'test.count',
    tenant_id: tenantId,
    data: { n },
    metadata: {},
    timestamp: '2026-01-02T03:04:05.678Z',
  };
  return {
    tenantId,
    id,
    answers: undefined,
    queue: queueNamed(queue),
    format: 'json',
    action,
    ...more,
  };
}

/** Replies that a test makes by hand: a spec is the id of what makes it. */
export function handReplies() {
  const makers = new Map<string, (turn: TurnRecord) => Outgoing>();
  return {
    replyOf(spec: ReplySpec, turn: TurnRecord): Outgoing {
      const make = makers.get(spec.id);
      if (!make) throw new Error(`nothing makes ${spec.id}`);
      return make(turn);
    },
    spec(id: string, make: (turn: TurnRecord) => Outgoing): ReplySpec {
      makers.set(id, make);
      return { id, format: 'json', request: { tenant_id: tenantIdSchema.parse('acme') } };
    },
  };
}

export const numbers = (from: number, to: number): readonly number[] =>
  Array.from({ length: to - from }, (_, index) => from + index);

/** The first time that each came. */
export const firsts = <T>(items: readonly T[]): readonly T[] => [...new Set(items)];

export type Fate = 'taken' | 'refused' | 'refused and taken' | 'never';

export interface FakeTransport {
  readonly transport: Pick<Transport, 'send' | 'ping'>;
  /** What has arrived, in order, repeats too. */
  readonly arrived: (queue: string) => readonly number[];
  readonly ids: () => readonly string[];
  readonly calls: () => number;
  /** Asked at every send. */
  fate: (queue: QueueName, action: DomainAction) => Fate;
  /** Whether a ping is answered. */
  well: boolean;
  /** What a send waits for before it answers. */
  pace: () => Promise<void>;
}

/** As the port says: behind a refusal that was not told yet it refuses all that comes to that queue. */
export function fakeTransport(): FakeTransport {
  const arrivals: { readonly queue: string; readonly action: DomainAction }[] = [];
  const refusing = new Map<string, number>();
  let calls = 0;
  const fake: FakeTransport = {
    arrived: (queue) =>
      arrivals.filter((each) => each.queue === queue).map(({ action }) => Number(action.data.n)),
    ids: () => arrivals.map(({ action }) => action.action_id),
    calls: () => calls,
    fate: () => 'taken',
    well: true,
    pace: async () => {},
    transport: {
      async send(queue, message) {
        calls += 1;
        if (!('action_id' in message)) throw new Error('not an action');
        const count = refusing.get(queue) ?? 0;
        const fate = count > 0 ? 'refused' : fake.fate(queue, message);
        if (fate === 'taken' || fate === 'refused and taken') arrivals.push({ queue, action: message });
        if (fate !== 'taken') refusing.set(queue, count + 1);
        await fake.pace();
        if (fate === 'taken') return;
        const left = (refusing.get(queue) ?? 1) - 1;
        refusing.set(queue, left);
        throw new RefusalError(refusal(fate === 'never' ? 'TOO_LARGE' : 'TRANSPORT_UNAVAILABLE'));
      },
      async ping() {
        if (!fake.well) throw new RefusalError(refusal('TRANSPORT_UNAVAILABLE'));
      },
    },
  };
  return fake;
}

/** Everything refused, pings too. */
export function goAway(fake: FakeTransport): void {
  fake.fate = () => 'refused';
  fake.well = false;
}

export function comeBack(fake: FakeTransport): void {
  fake.fate = () => 'taken';
  fake.well = true;
}

export interface WatchedStore {
  readonly store: Store;
  readonly writes: Write[];
  readonly reads: () => number;
  /** An error makes the write reject; with `done` it is carried out all the same. */
  fault: (write: Write) => { readonly error: Error; readonly done?: boolean } | undefined;
  readFault: () => Error | undefined;
}

export function watchedStore(inner: Store = memoryStore()): WatchedStore {
  const writes: Write[] = [];
  let reads = 0;
  const watched: WatchedStore = {
    writes,
    reads: () => reads,
    fault: () => undefined,
    readFault: () => undefined,
    store: {
      ...inner,
      async commit(write) {
        writes.push(write);
        const fault = watched.fault(write);
        if (!fault) return inner.commit(write);
        if (fault.done) await inner.commit(write);
        else await null;
        throw fault.error;
      },
      async unsent(afterSeq, limit) {
        reads += 1;
        const fault = watched.readFault();
        if (fault) throw fault;
        return inner.unsent(afterSeq, limit);
      },
    },
  };
  return watched;
}

export const storeAway = (): Error => new RefusalError(refusal('STORE_UNAVAILABLE'));

type RelayOptions = Partial<Omit<RelayDeps, 'store' | 'transport'>>;

/** What the relays of one test work over, and `start` for one of them; leaks are looked for after the test. */
export function openRelay(t: TestContext) {
  leakFree(t);
  const [fake, watched, log] = [fakeTransport(), watchedStore(), collectingLog()];
  const start = (more: RelayOptions = {}) => relayOver(fake.transport, watched.store, { log, ...more });
  return { fake, watched, log, start };
}

/** The in-process transport, and what is heard of the queue `q`. */
export async function memoryQueue() {
  const transport = createMemoryTransport(quiet, counting());
  const heard = collecting();
  const subscription = { queue: queueNamed('q'), group: 'all', weight: 1, share: 1 };
  await transport.consume([subscription], heard.listener, { credits: 1 });
  return { transport, heard };
}

/** A started relay. */
export function relayOver(transport: RelayDeps['transport'], store: Store, more: RelayOptions = {}): Relay {
  const relay = createRelay({
    store,
    transport,
    log: quiet,
    ...more,
    timing: { ...QUICK, ...more.timing },
  });
  relay.start();
  return relay;
}

export const unsentIn = async (store: Store): Promise<readonly string[]> =>
  (await store.unsent(0, 100_000)).map(({ outgoing: { id } }) => id);
