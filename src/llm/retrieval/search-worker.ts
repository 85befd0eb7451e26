/** The thread that reads and searches collections: the only place that loads the index. */
import { parentPort, workerData } from 'node:worker_threads';
import { type SearchReply, searchIndexDataSchema, searchQuerySchema } from './messages.ts';
import { createSearchIndex } from './search-index.ts';

const { root, readMs } = searchIndexDataSchema.parse(workerData);
const index = createSearchIndex({ root, readMs, now: () => performance.now() });

function answer(message: unknown): SearchReply {
  try {
    return index.query(searchQuerySchema.parse(message));
  } catch (error) {
    return { type: 'refused', problem: error instanceof Error ? error.message : 'The collection is broken.' };
  }
}

const port = parentPort;
port?.on('message', (message: unknown) => port.postMessage(answer(message)));
port?.postMessage('ready');
