/** Sends actions at a steady rate and books their callbacks, while whoever answers comes and goes. */
import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { LEASE_TIMES } from '../../transports/queue/redis/lease.ts';
import { agentRunAction, RUN_QUEUE } from '../exchange/agent-run.ts';
import { type Fields, fieldsOf } from '../exchange/messages.ts';
import { createLedger, type Ledger } from './ledger.ts';

export interface SendPlan {
  readonly count: number;
  /** Actions a second; what was missed is made up for. */
  readonly rate: number;
  /** Unanswered actions above which no more are sent. */
  readonly maxOpen: number;
  /** Without any callback for that long it is given up. */
  readonly patienceMs: number;
}

export interface Sender {
  readonly ledger: Ledger;
  /** Resolves when all were sent; false: given up before. */
  send(): Promise<boolean>;
  /** Resolves when all that were sent are answered; false: given up before. */
  settled(): Promise<boolean>;
  /** Resolves when what may come again has come. */
  late(): Promise<void>;
  close(): void;
}

const TICK_MS = 10;
const CALLBACKS = 'bench:chaos:callbacks';
/** What a killed node had taken and answered, and could not acknowledge any more, comes again within that. */
const LATE_MS = LEASE_TIMES.ttlMs + 3 * LEASE_TIMES.renewMs;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Connects; rejects where Redis is away. */
export async function openSender(redisUrl: string, plan: SendPlan): Promise<Sender> {
  const options = { lazyConnect: true, maxRetriesPerRequest: null };
  const [sender, reader] = [new Redis(redisUrl, options), new Redis(redisUrl, options)];
  await Promise.all([sender.connect(), reader.connect()]);
  const ledger = createLedger();
  let lastCallbackMs = performance.now();
  let closed = false;

  const listen = async (): Promise<void> => {
    while (!closed) {
      const taken = await reader.brpop(CALLBACKS, 0);
      if (!taken) continue;
      lastCallbackMs = performance.now();
      ledger.came(callbackIn(fieldsOf(JSON.parse(taken[1]))), lastCallbackMs);
    }
  };
  listen().catch((error: unknown) => {
    if (!closed) throw error;
  });

  const hopeless = (): boolean => performance.now() - lastCallbackMs > plan.patienceMs;

  return {
    ledger,
    async send() {
      const fromMs = performance.now();
      lastCallbackMs = fromMs;
      for (let sent = 0; sent < plan.count; ) {
        if (hopeless()) return false;
        const due = Math.ceil(((performance.now() - fromMs) / 1000) * plan.rate);
        const room = plan.maxOpen - ledger.open();
        const bodies: string[] = [];
        for (; sent < Math.min(due, plan.count) && bodies.length < room; sent++) {
          const actionId = randomUUID();
          ledger.sent(actionId, performance.now());
          bodies.push(bodyOf(actionId));
        }
        if (bodies.length > 0) await sender.lpush(RUN_QUEUE, ...bodies);
        await sleep(TICK_MS);
      }
      return true;
    },
    async settled() {
      while (ledger.open() > 0) {
        if (hopeless()) return false;
        await sleep(TICK_MS);
      }
      return true;
    },
    late: () => sleep(LATE_MS),
    close() {
      closed = true;
      sender.disconnect();
      reader.disconnect();
    },
  };
}

const bodyOf = (actionId: string): string =>
  JSON.stringify({
    ...agentRunAction(actionId),
    correlation_id: actionId,
    callback_queue: CALLBACKS,
  });

const callbackIn = ({ action_type: type, action_id: replyId, correlation_id: id, data }: Fields) => ({
  correlationId: String(id),
  replyId: String(replyId),
  errorCode: type === 'execution.callback' ? undefined : String(fieldsOf(data).error_code ?? type),
});
