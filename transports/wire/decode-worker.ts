/** The thread that reads large bodies off queues, so that the event loop need not. */
import { parentPort, workerData } from 'node:worker_threads';
import { readBody } from './codec.ts';

const shared = new Uint8Array(workerData);
// Of its own: no reader has to know of memory that others write to.
const body = Buffer.alloc(shared.length);

parentPort?.on('message', (length: number) => {
  body.set(shared.subarray(0, length));
  parentPort?.postMessage(readBody(body.subarray(0, length)));
});
parentPort?.postMessage('ready');
