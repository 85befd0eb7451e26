/** The thread that reads and searches collections: the only place that loads the index. */
import { parentPort, workerData } from 'node:worker_threads';
import { type ShelfReply, shelfDataSchema, shelfQuerySchema } from './messages.ts';
import { createShelf } from './search-index.ts';

const { root, readMs } = shelfDataSchema.parse(workerData);
const shelf = createShelf({ root, readMs, now: () => performance.now() });

function answer(message: unknown): ShelfReply {
  try {
    return shelf.query(shelfQuerySchema.parse(message));
  } catch (error) {
    return { type: 'refused', problem: error instanceof Error ? error.message : 'The collection is broken.' };
  }
}

const port = parentPort;
port?.on('message', (message: unknown) => port.postMessage(answer(message)));
port?.postMessage('ready');
