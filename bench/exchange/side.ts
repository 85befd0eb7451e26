/** One side of an exchange as a process. Arguments: `asker` or `answerer`, and the exchange. BENCH_REDIS_URL says where. */
import { quantiles, recording } from '../kit/numbers.ts';
import { cpuUs } from '../kit/proc-stat.ts';
import { commandSchema, type Ran, type RunCommand } from './commands.ts';
import type { Asker } from './contender.ts';
import { loadExchange } from './contenders.ts';

/** After an error; a refusing server is not to be flooded. */
const ERROR_PAUSE_MS = 10;
/** Requests that still wait when the window ends may take this long. */
const SETTLE_MS = 10_000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

async function run({ ask }: Asker, command: RunCommand): Promise<Ran> {
  const took = recording();
  let sending = true;
  let errors = 0;
  let lastError: string | undefined;
  let waiting = 0;

  const keepAsking = async (): Promise<void> => {
    while (sending) {
      const fromMs = performance.now();
      waiting += 1;
      try {
        await ask();
        took.add(performance.now() - fromMs);
      } catch (error) {
        errors += 1;
        lastError = textOf(error);
        await sleep(ERROR_PAUSE_MS);
      }
      waiting -= 1;
    }
  };
  const all = Promise.all(Array.from({ length: command.inFlight }, keepAsking));

  await sleep(command.warmupMs);
  took.clear();
  errors = 0;
  const cpu = () => ({ answerer: cpuUs(command.answererPid), redis: cpuUs(command.redisPid) });
  const from = { ms: performance.now(), own: process.cpuUsage(), ...cpu() };
  await sleep(command.durationMs);
  const elapsedMs = performance.now() - from.ms;
  const own = process.cpuUsage(from.own);
  const to = cpu();
  const { count, p50, p99 } = quantiles(took.values());
  sending = false;
  const patience = new AbortController();
  await Promise.race([all, patient(patience.signal)]);
  patience.abort();
  return {
    ...{ count, errors, unanswered: waiting, elapsedMs, p50Ms: p50, p99Ms: p99 },
    ...(lastError === undefined ? {} : { lastError }),
    askerCpuUs: own.user + own.system,
    answererCpuUs: to.answerer - from.answerer,
    redisCpuUs: to.redis - from.redis,
  };
}

const patient = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, SETTLE_MS);
    signal.addEventListener('abort', () => clearTimeout(timer));
  });

const [side, name] = process.argv.slice(2);
const { BENCH_REDIS_URL: url = '' } = process.env;
const exchange = await loadExchange(name);

if (side === 'answerer') await exchange.answerer?.(url);
else {
  const asker = await exchange.asker(url);
  process.on('message', (message) => {
    const command = commandSchema.parse(message);
    const done = command.do === 'run' ? run(asker, command) : asker.ask().then((answer) => ({ answer }));
    done.then(
      (report) => process.send?.(report),
      (error: unknown) => process.send?.({ error: textOf(error) }),
    );
  });
}
process.once('SIGTERM', () => process.exit(0));
process.once('disconnect', () => process.exit(0));
process.send?.({ ready: true });
