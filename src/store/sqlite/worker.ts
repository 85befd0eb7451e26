/** The thread in which SQLite runs: a commit waits for the disk, and the event loop must not wait with it. */
import { parentPort, workerData } from 'node:worker_threads';
import { sqliteFailure } from '../failure.ts';
import { type Connection, openConnection } from './connection.ts';
import type { SqliteOptions, WorkerReply, WorkerRequest } from './protocol.ts';

function serve(
  options: SqliteOptions,
  answer: (reply: WorkerReply) => void,
): (request: WorkerRequest) => void {
  let opened: Connection | undefined;
  return (request) => {
    const { id } = request;
    try {
      if (request.type === 'close') {
        opened?.close();
        answer({ id, type: 'closed' });
        return;
      }
      // Where it fails the next request tries again.
      opened ??= openConnection(options);
      if (request.type === 'batch') answer({ id, type: 'outcomes', outcomes: opened.batch(request.writes) });
      else answer({ id, type: 'result', result: opened.query(request.sql, request.params) });
    } catch (error) {
      answer({ id, type: 'failed', failure: sqliteFailure(error) });
    }
  };
}

const port = parentPort;
if (port) {
  const work = serve(workerData, (reply) => port.postMessage(reply));
  port.on('message', (request: WorkerRequest) => {
    work(request);
    if (request.type === 'close') port.close();
  });
}
