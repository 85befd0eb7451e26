/**
 * Profiles a server under load and prints where its time goes.
 * `npm run bench:profile -- [nooble|uwsStream|…] --seconds 5 --set sessions=100 --set model=offline-50x0`;
 * `--set tokenMs=20`: our node instead streams from an endpoint in OpenAI's protocol, and turns are cancelled;
 * with `--set tokens=50` they end by themselves, as in the model-stream bench, and it may be a peer.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { RESULTS } from './kit/bench-main.ts';
import { type Spent, summarise } from './kit/cpu-profile.ts';
import { written } from './kit/numbers.ts';
import { type BenchOptions, benchOptions, setting } from './kit/options.ts';
import { end, heard } from './kit/process.ts';
import { SERVERS, type Server, type ServerKind, startServer } from './kit/servers.ts';
import { type CancelPlan, cancelledSchema } from './load/cancel-plan.ts';
import { startLoad } from './load/load.ts';
import { STUB_MODEL, startCancelling, startStub, stubSettings } from './load/streams.ts';

const PRELOAD = ['--import', './bench/preload/profile-on-signal.ts'];
const TOP = { functions: 45, places: 25 };

const kindOf = (name: string): ServerKind => {
  const found = Object.entries(SERVERS).find(([key]) => key === name)?.[1];
  if (!found) throw new Error(`no server ${name}; there are ${Object.keys(SERVERS).join(', ')}`);
  return found;
};

function lines(title: string, spent: readonly Spent[], totalUs: number, top: number): string {
  const percent = (us: number): string => written((us / totalUs) * 100).padStart(6);
  return [
    `\n${title}\n  self %  total %`,
    ...spent
      .slice(0, top)
      .map(({ name, selfUs, totalUs: us }) => `  ${percent(selfUs)}  ${percent(us)}   ${name}`),
  ].join('\n');
}

/** The second SIGUSR2 writes the file. */
async function toggle(server: Server): Promise<void> {
  const answered = heard(server.child, (message) => message, 60_000);
  server.child.kill('SIGUSR2');
  await answered;
}

/** Chat turns as in the chat-turn bench. Returns what was achieved. */
async function chatTurns(server: Server, options: BenchOptions): Promise<string> {
  const load = await startLoad();
  const target = { port: server.port, dialect: server.kind.dialect, tenant: 'bench', query: '' };
  const loop = {
    ...{ pauseMs: 0, errorPauseMs: 10, spreadMs: 500, depth: 1, warmupMs: 0 },
    serverPid: server.pid,
  };
  await load.open({ ...target, prefix: 'p', count: setting(options, 'sessions', 100) });
  await load.run({ ...loop, durationMs: 2000 });
  await toggle(server);
  const report = await load.run({ ...loop, durationMs: options.roundMs });
  await toggle(server);
  await load.end();
  return `${Math.round(report.turns / (report.elapsedMs / 1000))} turns/s while profiled`;
}

/** Streams and cancels as in the cancel bench. */
async function streams(server: Server, options: BenchOptions): Promise<string> {
  const client = await startCancelling('node', 'load');
  const count = setting(options, 'sessions', 500);
  const plan: CancelPlan = {
    ...{ port: server.port, streams: count, warmupMs: 2000, durationMs: options.roundMs },
    ...{ gapMs: setting(options, 'gapMs', 10), prefix: 'p' },
  };
  const answer = heard(client, (message) => cancelledSchema.parse(message), 120_000);
  client.send(plan);
  await new Promise((resolve) => setTimeout(resolve, plan.warmupMs));
  await toggle(server);
  const { cancels } = await answer;
  await toggle(server);
  await end(client);
  return `${count} streams, ${cancels.length} cancels while profiled`;
}

async function profile(name: string, options: BenchOptions): Promise<void> {
  const kind = kindOf(name);
  const { tokenMs, tokens } = options.set;
  const endless = tokenMs !== undefined && tokens === undefined;
  const stub =
    tokenMs === undefined
      ? undefined
      : await startStub({ tokenMs: Number(tokenMs), ...(endless ? {} : { tokens: Number(tokens) }) });
  const model = stub ? STUB_MODEL : (options.set.model ?? 'offline-50x0');
  mkdirSync(RESULTS, { recursive: true });
  const file = `${RESULTS}${name}-${model}.cpuprofile`;
  const server = await startServer({ ...kind, args: [...PRELOAD, ...kind.args] }, model, {
    PROFILE_FILE: file,
    ...(stub ? stubSettings(stub) : {}),
  });
  const achieved = await (endless ? streams : chatTurns)(server, options);
  await server.end();
  await stub?.end();

  const { totalUs, functions, places } = summarise(readFileSync(file, 'utf8'));
  console.log(`${kind.name}, ${model}: ${achieved}`);
  console.log(lines('places', places, totalUs, TOP.places));
  console.log(lines('functions', functions, totalUs, TOP.functions));
  console.log(`\n${file}`);
}

const options = benchOptions(process.argv.slice(2), { rounds: 1, seconds: 5 });
for (const name of options.names.length > 0 ? options.names : ['nooble']) await profile(name, options);
