/** The thread that reads large bodies off queues, so that the event loop need not. */
import { parentPort } from 'node:worker_threads';
import { readBody } from './codec.ts';

parentPort?.on('message', (bytes: Uint8Array) => parentPort?.postMessage(readBody(bytes)));
parentPort?.postMessage('ready');
