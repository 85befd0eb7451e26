/** The process: settings of the environment, the command line, and the signals on which a node drains and goes. */
import { pathToFileURL } from 'node:url';
import { announce, warn } from './cli/announce.ts';
import { runCli } from './cli/cli.ts';
import { parseSettings } from './settings.ts';
import { compactHeap } from './telemetry/compact-heap.ts';
import { createLog } from './telemetry/log.ts';

/** A terminal signals the whole group and npm passes its own signal on: what comes within this is the same one. */
const SAME_SIGNAL_MS = 1_000;
/** The others gave this node up, and it could not go on by itself: whoever supervises it should start it again. */
const EXIT_SUPERSEDED = 75;

async function main(): Promise<void> {
  const parsed = parseSettings(process.env);
  if (!parsed.ok) {
    process.stderr.write(
      `nooble can not start; these settings are wrong:\n  ${parsed.problems.join('\n  ')}\n`,
    );
    process.exit(2);
  }
  const { settings } = parsed;
  const { startNode } = await import('./node.ts');
  compactHeap();
  const fail = (code: number) => (error: unknown) => {
    process.stderr.write(`nooble can not start: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(code);
  };
  let node = await startNode(settings).catch(fail(1));
  const { log } = node;
  announce(settings, node);
  /** What froze once is not broken: when nothing of the old node is left, a new one goes on in its place. */
  const goOn = async (): Promise<void> => {
    const { server, superseded } = node;
    await superseded;
    node = await startNode(settings, { log, server });
    log.info({ port: node.port }, 'the node goes on as a new one');
    leaveIfTold();
    return goOn();
  };
  const leaveIfTold = (): void =>
    void node.leaving.then(() => {
      if (firstAtMs !== undefined) return;
      log.info({}, 'an operator has this node leave');
      leave();
    });
  goOn().catch(fail(EXIT_SUPERSEDED));

  let firstAtMs: number | undefined;
  const leave = (): void => {
    firstAtMs = performance.now();
    node.drain().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ err: error }, 'drain failed');
        process.exit(1);
      },
    );
  };
  const stop = (signal: NodeJS.Signals): void => {
    if (firstAtMs !== undefined) {
      if (performance.now() - firstAtMs > SAME_SIGNAL_MS) process.exit(1);
      return;
    }
    log.info({ signal }, 'signal received; a second one, after a second, exits at once');
    leave();
  };
  leaveIfTold();
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  const die = (kind: string) => (error: unknown) => {
    log.error({ err: error }, kind);
    log.flush().finally(() => process.exit(1));
  };
  process.on('uncaughtException', die('uncaught exception'));
  process.on('unhandledRejection', die('unhandled rejection'));

  const { webPageWarnings } = await import('./llm/web-pages.ts');
  void webPageWarnings(settings.models.providers).then((found) => {
    for (const text of found) {
      node.warn(text);
      warn(log, text);
    }
  });
}

/** The words after `src/main.ts`; none, or `start`, starts a node. */
async function command(args: readonly string[]): Promise<void> {
  if (args[0] === undefined || args[0] === 'start') return main();
  // A reader that has seen enough (`| head`) is no failure to report.
  process.stdout.on('error', () => process.exit(0));
  const silent = createLog({ level: 'silent', name: 'nooble', version: 'none', nodeId: 'none' });
  process.exitCode = await runCli(args, {
    environment: process.env,
    out: (line) => void process.stdout.write(`${line}\n`),
    err: (line) => void process.stderr.write(`${line}\n`),
    // Loaded where they are needed: most commands talk to a node, and should answer at once.
    askRedis: async (...question) =>
      (await import('../transports/queue/redis/ping.ts')).askRedis(...question),
    askModel: async (...question) => (await import('./llm/one-token.ts')).askOneToken(...question),
    openDead: async (url) =>
      (await import('../transports/queue/redis/dead-letters.ts')).openDeadLetters(url, silent),
    openStores: async ({ databaseUrl: url }) =>
      (await import('./store/open.ts')).openStores({ url, log: silent }),
  });
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href)
  await command(process.argv.slice(2));
