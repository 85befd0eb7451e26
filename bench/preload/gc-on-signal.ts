/** Loaded before a server: SIGUSR2 collects garbage and tells the parent what memory is left. Needs --expose-gc. */

/** Compacts and gives pages back, as V8 does under memory pressure; a plain `gc()` keeps them. */
const LAST_RESORT = { type: 'major', execution: 'sync', flavor: 'last-resort' } as const;

process.on('SIGUSR2', () => {
  globalThis.gc?.(LAST_RESORT);
  // The second round frees what finalisers of the first let go of.
  setTimeout(() => {
    globalThis.gc?.(LAST_RESORT);
    process.send?.({ memory: process.memoryUsage() });
  }, 200);
});
// The IPC channel alone must not keep a server alive that has drained.
process.channel?.unref();
