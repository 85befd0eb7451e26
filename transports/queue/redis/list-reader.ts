/**
 * Reads one list on a connection of its own, in batches and at most once: what is on its way when the connection breaks
 * is lost. It comes back by itself.
 */
import type { Redis } from 'ioredis';
import type { Log } from '../../../src/ports/telemetry.ts';
import { closeConnection, type Endpoint, openConnection, textOf } from './connection.ts';
import { itemsOf } from './scripts.ts';

const MAX_BATCH = 256;
/** After an error that is no lost connection: it would come back at once. */
const RETRY_MS = 100;

interface ListReader {
  /** Begins to read; once is enough. */
  start(): void;
  close(): Promise<void>;
}

interface ListReaderOptions {
  /** Names the connection. */
  readonly name: string;
  readonly key: string;
  /** How long one read blocks on the server. */
  readonly blockMs: number;
  readonly onBody: (body: Buffer) => void;
}

export function createListReader(
  endpoint: Endpoint,
  { name, key, blockMs, onBody }: ListReaderOptions,
  log: Log,
): ListReader {
  let connection: Redis | undefined;
  let reading: Promise<void> = Promise.resolve();
  let isClosed = false;
  let goOn = (): void => {};

  const read = async (redis: Redis): Promise<void> => {
    const args = [blockMs / 1_000, 1, key, 'RIGHT', 'COUNT', MAX_BATCH];
    while (!isClosed) {
      if (redis.status !== 'ready') {
        // Not `end`: a connection that is closed while it waits to reconnect never says so.
        await new Promise<void>((resolve) => {
          goOn = resolve;
          redis.once('ready', resolve);
        });
        continue;
      }
      try {
        const [, bodies] = itemsOf(await redis.callBuffer('BLMPOP', ...args));
        for (const body of itemsOf(bodies)) if (Buffer.isBuffer(body) && !isClosed) onBody(body);
        // What is sent in answer goes out before we ask anew.
        await new Promise(process.nextTick);
      } catch (error) {
        if (isClosed) return;
        log.debug({ connection: name, error: textOf(error) }, 'reading a list broke off');
        if (redis.status === 'ready') await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  };

  return {
    start() {
      if (connection || isClosed) return;
      connection = openConnection(endpoint, name, blockMs);
      // Where it fails it is tried again; whoever waits for something has a deadline.
      connection.connect().catch(() => {});
      reading = read(connection);
    },
    async close() {
      isClosed = true;
      if (connection) closeConnection(connection);
      goOn();
      await reading;
    },
  };
}
