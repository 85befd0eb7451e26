/** Actions, counters and collecting listeners for tests of transports. */
import { randomUUID } from 'node:crypto';
import type { TestContext } from 'node:test';
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { RefusalError } from '../../src/domain/errors.ts';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import { type QueueName, queueNameSchema } from '../../src/domain/queues.ts';
import type {
  ActionDelivery,
  Listener,
  Transport,
  TransportEvent,
  TransportMeter,
} from '../../src/ports/transport.ts';
import { createMemoryTransport, type MemoryTransport } from '../../transports/queue/memory.ts';
import { quiet } from './quiet.ts';
import { until } from './until.ts';

export const queue = (name: string): QueueName => queueNameSchema.parse(name);

export const action = (n: number, more: Partial<DomainAction> = {}): DomainAction => ({
  action_id: randomUUID(),
  action_type: 'test.count',
  tenant_id: tenantIdSchema.parse('acme'),
  data: { n },
  metadata: {},
  timestamp: '2026-01-02T03:04:05.678Z',
  ...more,
});

export interface Meter extends TransportMeter {
  readonly of: (event: TransportEvent) => number;
}

export function counting(): Meter {
  const counts = new Map<TransportEvent, number>();
  return {
    counted: (event, count) => void counts.set(event, (counts.get(event) ?? 0) + count),
    of: (event) => counts.get(event) ?? 0,
  };
}

/** The in-process transport, closed after the test. */
export function memoryTransport(t: TestContext, meter: Meter = counting()): MemoryTransport {
  const transport = createMemoryTransport(quiet, meter);
  t.after(() => transport.close());
  return transport;
}

export interface Collected {
  readonly listener: Listener;
  readonly deliveries: ActionDelivery[];
  /** The numbers heard so far, in order. */
  readonly numbers: () => readonly number[];
  /** Resolves when that many deliveries have begun. */
  readonly heard: (count: number) => Promise<void>;
}

/** Keeps what it hears, and then does what `then` says. */
export function collecting(then: (delivery: ActionDelivery) => Promise<void> = async () => {}): Collected {
  const deliveries: ActionDelivery[] = [];
  return {
    deliveries,
    numbers: () => deliveries.map(({ action: { data } }) => Number(data.n)),
    heard: (count) => until(`${count} deliveries`, () => deliveries.length >= count),
    listener: (delivery) => {
      deliveries.push(delivery);
      return then(delivery);
    },
  };
}

/** A promise that the test keeps in its hands. */
export function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** Answers a request as a peer does: on the queue it names, in its format. */
export const answering =
  (transport: Transport, more: (delivery: ActionDelivery) => Partial<DomainAction> = () => ({})): Listener =>
  async (delivery) => {
    const { action: request, format } = delivery;
    const { callback_queue: replyQueue, ...rest } = request;
    const reply: DomainAction = {
      ...rest,
      action_id: randomUUID(),
      action_type: 'test.counted',
      ...more(delivery),
    };
    await transport.send(queue(replyQueue ?? 'nowhere'), reply, format);
  };

/** The code of a refusal that a promise must end in. */
export async function refusedWith(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof RefusalError) return error.data.code;
    throw error;
  }
  throw new Error('it was not refused');
}
