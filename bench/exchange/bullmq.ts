/** BullMQ: a job added, and waited for by its QueueEvents until a worker in the other process has completed it. */
import { Queue, QueueEvents, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import type { Asker, Exchange } from './contender.ts';
import { answerIn, type Fields, fieldsOf, looseReplyTo, question } from './messages.ts';

const TIMEOUT_MS = 20_000;
/** Above what any load has in flight. */
const CONCURRENCY = 1_024;
/** Completed jobs that are kept: one that is gone before its waiter has looked would count as missing. */
const KEPT = 5_000;

const connection = (url: string): Redis => new Redis(url, { maxRetriesPerRequest: null });

export async function openBullAsker(
  url: string,
  name: string,
  compose: () => Fields,
  read: (result: unknown) => string,
): Promise<Asker> {
  const queue = new Queue(name, {
    connection: connection(url),
    defaultJobOptions: { removeOnComplete: { count: KEPT }, removeOnFail: { count: KEPT } },
  });
  const events = new QueueEvents(name, { connection: connection(url) });
  // Every waiter listens for itself, on both.
  events.setMaxListeners(0);
  queue.setMaxListeners(0);
  await events.waitUntilReady();
  return {
    ask: async () => {
      const job = await queue.add('ask', compose());
      return read(await job.waitUntilFinished(events, TIMEOUT_MS));
    },
  };
}

export async function openBullAnswerer(
  url: string,
  name: string,
  answer: (request: Fields) => unknown,
): Promise<void> {
  const options = { connection: connection(url), concurrency: CONCURRENCY };
  const worker = new Worker(name, async ({ data }) => answer(fieldsOf(data)), options);
  worker.on('error', (error: Error) => console.error(error));
  await worker.waitUntilReady();
}

export const bullmq: Exchange = {
  asker: (url) => openBullAsker(url, 'bench', question, answerIn),
  answerer: (url) => openBullAnswerer(url, 'bench', looseReplyTo),
};
