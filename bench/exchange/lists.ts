/** The floor: LPUSH and BRPOP with plain JSON, nothing kept while it is worked on, nothing checked. */
import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import type { Asker, Exchange } from './contender.ts';
import { answerIn, type Fields, fieldsOf, looseReplyTo, question } from './messages.ts';

const QUEUE = 'bench:lists';

const connect = async (url: string): Promise<Redis> => {
  const redis = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: null });
  await redis.connect();
  return redis;
};

/** Hears every body of a list, one after another, for ever; a failure ends the process, and with it the bench. */
async function listen(redis: Redis, list: string, hear: (message: Fields) => void): Promise<void> {
  for (;;) {
    const taken = await redis.brpop(list, 0);
    if (taken) hear(fieldsOf(JSON.parse(taken[1])));
  }
}

const fatal = (error: unknown): void => {
  console.error(error);
  process.exit(1);
};

interface ListAsking {
  readonly queue: string;
  readonly compose: () => Fields;
  /** Throws where a reply is an error. */
  readonly read: (reply: Fields) => string;
}

/** Asks as any sender would: an action with `callback_queue`, told apart by `correlation_id`. */
export async function openListAsker(url: string, { queue, compose, read }: ListAsking): Promise<Asker> {
  const sender = await connect(url);
  const callbackQueue = `bench:callbacks:${randomUUID()}`;
  const waiting = new Map<string, (reply: Fields) => void>();
  listen(await connect(url), callbackQueue, (reply) => {
    const id = String(reply.correlation_id);
    waiting.get(id)?.(reply);
    waiting.delete(id);
  }).catch(fatal);
  return {
    ask: async () => {
      const correlationId = randomUUID();
      const replied = new Promise<Fields>((resolve) => waiting.set(correlationId, resolve));
      const action = { ...compose(), correlation_id: correlationId, callback_queue: callbackQueue };
      await sender.lpush(queue, JSON.stringify(action));
      return read(await replied);
    },
  };
}

/** Answers what comes to a list; as many at once as come. */
export async function openListAnswerer(
  url: string,
  queue: string,
  answer: (request: Fields) => Fields | Promise<Fields>,
): Promise<void> {
  const sender = await connect(url);
  listen(await connect(url), queue, (request) => {
    Promise.resolve(answer(request))
      .then((reply) => sender.lpush(String(request.callback_queue), JSON.stringify(reply)))
      .catch(fatal);
  }).catch(fatal);
}

export const lists: Exchange = {
  asker: (url) => openListAsker(url, { queue: QUEUE, compose: question, read: answerIn }),
  answerer: (url) => openListAnswerer(url, QUEUE, looseReplyTo),
};
