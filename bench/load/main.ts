/** The load process: keeps sessions open, runs closed loops on them, and reports what it timed. */
import { quantiles, recording } from '../kit/numbers.ts';
import { cpuUs } from '../kit/proc-stat.ts';
import { activate } from './activating.ts';
import { type Command, type CommandOf, commandSchema, type Reports, type RunReport } from './commands.ts';
import { createPool, type LoadSession } from './pool.ts';
import { update } from './updating.ts';
import { verify } from './verify.ts';

const pool = createPool();
let target: CommandOf<'open'> | undefined;

/** Turns that still run when the window ends may take this long to end. */
const SETTLE_MS = 30_000;
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function run(command: CommandOf<'run'>): Promise<RunReport> {
  const accepted = recording();
  const ttft = recording();
  const turn = recording();
  const token = recording();
  const added = recording();
  let sending = true;
  let running = 0;
  let errors = 0;
  let lost = 0;
  let lastError: string | undefined;
  let settled: (() => void) | undefined;
  const quiet = new Promise<void>((resolve) => {
    settled = resolve;
  });

  const send = (session: LoadSession): void => {
    if (!sending || !session.socket) return;
    running += 1;
    pool.send(session);
  };
  const next = (session: LoadSession, pauseMs: number): void => {
    running -= 1;
    if (sending && pauseMs > 0) setTimeout(send, pauseMs, session);
    else if (sending) send(session);
    else if (running === 0) settled?.();
  };
  pool.watch({
    accepted: (_, sinceSentMs) => accepted.add(sinceSentMs),
    firstDelta: (_, sinceSentMs) => ttft.add(sinceSentMs),
    token(sinceWrittenMs, tookMs, sinceSentMs) {
      token.add(sinceWrittenMs);
      if (tookMs !== undefined) added.add(sinceSentMs - tookMs);
    },
    ended(session, sinceSentMs) {
      turn.add(sinceSentMs);
      next(session, command.pauseMs);
    },
    failed(session, frame) {
      errors += 1;
      lastError = frame;
      next(session, command.errorPauseMs);
    },
    lost: () => {
      lost += 1;
    },
  });

  for (const session of pool.sessions) {
    const first = (): void => {
      for (let i = 0; i < command.depth; i++) send(session);
    };
    const afterMs = (command.spreadMs * session.index) / pool.sessions.length;
    if (afterMs > 0) setTimeout(first, afterMs);
    else first();
  }
  await sleep(command.warmupMs);
  accepted.clear();
  ttft.clear();
  turn.clear();
  token.clear();
  added.clear();
  errors = 0;
  const from = { ms: performance.now(), server: cpuUs(command.serverPid), load: process.cpuUsage() };
  await sleep(command.durationMs);
  const elapsedMs = performance.now() - from.ms;
  const load = process.cpuUsage(from.load);
  const serverCpuUs = cpuUs(command.serverPid) - from.server;
  const report: RunReport = {
    turns: turn.values().length,
    errors,
    ...(lastError === undefined ? {} : { lastError }),
    lost,
    elapsedMs,
    serverCpuUs: Number.isFinite(serverCpuUs) ? serverCpuUs : null,
    loadShare: (load.user + load.system) / 1000 / elapsedMs,
    acceptedMs: quantiles(accepted.values()),
    ttftMs: quantiles(ttft.values()),
    turnMs: quantiles(turn.values()),
    tokenMs: quantiles(token.values()),
    addedMs: quantiles(added.values()),
  };
  sending = false;
  if (running > 0) await Promise.race([quiet, sleep(SETTLE_MS)]);
  return report;
}

async function turns({ each, concurrency }: CommandOf<'turns'>): Promise<Reports['turns']> {
  const left = new Map<LoadSession, number>(pool.sessions.map((session) => [session, each]));
  const waiting = [...pool.sessions];
  let done = 0;
  let errors = 0;
  let lastError: string | undefined;
  await new Promise<void>((resolve, reject) => {
    const next = (): void => {
      const session = waiting.shift();
      if (session) pool.send(session);
      else if (done + errors === pool.sessions.length * each) resolve();
    };
    const ended = (session: LoadSession): void => {
      const remaining = (left.get(session) ?? 0) - 1;
      left.set(session, remaining);
      if (remaining > 0) waiting.push(session);
      next();
    };
    pool.watch({
      accepted: () => undefined,
      firstDelta: () => undefined,
      ended(session) {
        done += 1;
        ended(session);
      },
      failed(session, frame) {
        errors += 1;
        lastError = frame;
        ended(session);
      },
      lost: () => reject(new Error('a socket closed during its turns')),
    });
    for (let i = 0; i < Math.min(concurrency, pool.sessions.length); i++) next();
  });
  return { turns: done, errors, ...(lastError === undefined ? {} : { lastError }) };
}

async function obey(command: Command): Promise<Reports[Command['do']]> {
  switch (command.do) {
    case 'open':
      target = command;
      return { opened: await pool.open(command) };
    case 'verify':
      if (!target) throw new Error('open first');
      return verify(target);
    case 'run':
      return run(command);
    case 'turns':
      return turns(command);
    case 'activate':
      return activate(command);
    case 'update':
      return update(command);
    case 'close':
      return { closed: await pool.close() };
  }
}

process.on('message', (message) => {
  obey(commandSchema.parse(message)).then(
    (report) => process.send?.({ report }),
    (error: unknown) => process.send?.({ error: error instanceof Error ? error.message : String(error) }),
  );
});
process.on('disconnect', () => process.exit(0));
process.send?.({ ready: true });
