/** The dead lists in Redis: what could not be worked on, newest left, one JSON text each, beside which large bodies are kept. */
import type { Redis } from 'ioredis';
import { deadQueue, type QueueName, queueNameSchema } from '../../../src/domain/queues.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import type { DeadLetter, DeadLetters } from '../../../src/ports/transport.ts';
import { bodyOf, labelOf, MAX_DEAD_LETTERS, parseDeadLetter, withBody } from '../delivery.ts';
import { closeConnection, connected, openConnection, unavailable } from './connection.ts';
import { DEAD_QUEUES, deadBodyKey, removeDeadLetterScript } from './scripts.ts';
import { redisOptions } from './url.ts';

/** Letters in one reply: each may be as large as an action. */
const PAGE = 20;

interface Found {
  readonly raw: Buffer;
  readonly letter: DeadLetter | null;
}

export function createDeadLetters(redis: Redis): DeadLetters {
  /** Newest first, as far as `limit` goes. */
  async function* letters(queue: QueueName, limit: number): AsyncGenerator<Found> {
    for (let at = 0; at < limit; at += PAGE) {
      const last = Math.min(at + PAGE, limit) - 1;
      const page = await redis.lrangeBuffer(deadQueue(queue), at, last);
      for (const raw of page) {
        const stored = parseDeadLetter(raw.toString());
        const letter = stored?.isApart
          ? withBody(stored, await redis.hgetBuffer(deadBodyKey(stored.id), 'body'))
          : stored;
        yield { raw, letter };
      }
      if (page.length < PAGE) return;
    }
  }

  const remove = async (
    queue: QueueName,
    how: 'replay' | 'drop',
    id: string | undefined,
  ): Promise<number> => {
    const chosen: Found[] = [];
    for await (const found of letters(queue, MAX_DEAD_LETTERS)) {
      if (id !== undefined && found.letter?.id !== id) continue;
      if (how === 'drop' || found.letter?.replayable) chosen.push(found);
      if (id !== undefined) break;
    }
    let count = 0;
    for (const { raw, letter } of chosen.reverse()) {
      const body = how === 'replay' && letter ? bodyOf(letter) : '';
      const keys = [deadQueue(queue), queue, DEAD_QUEUES, deadBodyKey(letter?.id ?? '')];
      count += Number(await removeDeadLetterScript(redis, keys, [raw, how, body]));
    }
    return count;
  };

  return {
    queues: () =>
      orUnavailable(async () =>
        (await redis.smembers(DEAD_QUEUES)).flatMap((name) => queueNameSchema.safeParse(name).data ?? []),
      ),
    list: (queue, limit) =>
      orUnavailable(async () => {
        const found: DeadLetter[] = [];
        for await (const { letter } of letters(queue, limit)) if (letter) found.push(letter);
        return found;
      }),
    replay: (queue, id) => orUnavailable(() => remove(queue, 'replay', id)),
    drop: (queue, id) => orUnavailable(() => remove(queue, 'drop', id)),
  };
}

async function orUnavailable<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw unavailable(error);
  }
}

/**
 * The dead lists of a Redis on a connection of their own, for a command line. Rejects with TRANSPORT_UNAVAILABLE
 * where the first try fails, and with an Error for a URL that is none (redisOptions).
 */
export async function openDeadLetters(url: string, log: Log) {
  const options = redisOptions(url);
  const redis = openConnection({ options, log, meter: { counted: () => {} } }, 'dead', 0);
  await connected(redis);
  return {
    letters: createDeadLetters(redis),
    labelOf,
    close: async (): Promise<void> => closeConnection(redis),
  };
}
