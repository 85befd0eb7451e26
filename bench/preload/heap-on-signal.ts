/** Loaded before a server: SIGUSR2 writes a heap snapshot to HEAP_FILE (it collects garbage first). */
import { writeHeapSnapshot } from 'node:v8';

process.on('SIGUSR2', () => {
  writeHeapSnapshot(process.env.HEAP_FILE ?? 'server.heapsnapshot');
  process.send?.({ heap: 'written' });
});
// The IPC channel alone must not keep a server alive that has drained.
process.channel?.unref();
