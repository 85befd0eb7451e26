/** The node's log: pino JSON lines, written beside the event loop, with secrets and conversations taken out first. */
import { type Logger, pino } from 'pino';
import { defined } from '../domain/defined.ts';
import type { Log } from '../ports/telemetry.ts';
import { scrubFields, scrubText } from './redact.ts';

interface LogOptions {
  readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';
  /** Name of the service, as `service` in every line. */
  readonly name: string;
  readonly version?: string | undefined;
  /** Name of the node, as `node` in every line. */
  readonly nodeId: string;
}

/** The reader of lines: one call a line, each ending in a newline. */
interface LogDestination {
  write(line: string): void;
}

export interface NodeLog extends Log {
  /** Resolves once what was logged so far has left the process, or after a second: a reader may never read. */
  flush(): Promise<void>;
}

/** Bytes that are gathered before a write; whatever waits is written after FLUSH_MS anyway. */
const MIN_WRITE_BYTES = 4_096;
const FLUSH_MS = 200;
const MAX_FLUSH_MS = 1_000;
/** Bytes that may wait for a reader of stdout that does not read; beyond, lines are dropped and counted. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;

/**
 * Makes the log of a node. Without a destination it goes to stdout: lines are gathered and written off the
 * loop, and what still waits is written when the process exits (a killed process loses at most FLUSH_MS).
 * Below the level nothing is looked at, so that a debug line costs one comparison.
 */
export function createLog(options: LogOptions, destination?: LogDestination): NodeLog {
  const stdout = destination ? undefined : toStdout();
  const logger = pino(
    {
      level: options.level,
      base: defined({ service: options.name, version: options.version, node: options.nodeId }),
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      /** Fields are plain data by then; pino's own error serializer would bring bodies back. */
      serializers: {},
    },
    destination ?? stdout ?? process.stdout,
  );
  const log = over(logger);
  if (stdout) reportDrops(stdout, log);
  return { ...log, flush: () => flushed(stdout) };
}

type Stdout = ReturnType<typeof pino.destination>;

/** pino.destination registers its own flush at exit and falls silent when the reader is gone (EPIPE). */
function toStdout(): Stdout {
  return pino.destination({
    fd: 1,
    sync: false,
    minLength: MIN_WRITE_BYTES,
    maxLength: MAX_WAITING_BYTES,
    periodicFlush: FLUSH_MS,
  });
}

function reportDrops(stdout: Stdout, log: Log): void {
  let dropped = 0;
  stdout.on('drop', () => {
    dropped += 1;
  });
  stdout.on('drain', () => {
    if (dropped === 0) return;
    const lines = dropped;
    dropped = 0;
    log.warn({ lines }, 'log lines were dropped: their reader was too slow');
  });
}

function flushed(stdout: Stdout | undefined): Promise<void> {
  if (!stdout) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, MAX_FLUSH_MS);
    stdout.flush(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** The scrubbing happens here rather than in pino's `redact`, which knows paths only, not names at any depth. */
function over(logger: Logger): Log {
  const at =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (fields: object, text: string): void => {
      if (logger.isLevelEnabled(level)) logger[level](scrubFields(fields), scrubText(text));
    };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}
