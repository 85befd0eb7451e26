/**
 * Runs our node under clinic while the chat-turn load is on it: `npm run clinic:flame`, `npm run clinic:doctor`.
 * The report (HTML) lands in bench/results/clinic. `--seconds 10 --set sessions=100 --set model=offline-50x0`
 */
import { once } from 'node:events';
import { existsSync, mkdirSync } from 'node:fs';
import { RESULTS } from './kit/bench-main.ts';
import { benchOptions, setting } from './kit/options.ts';
import { childrenOf } from './kit/proc-stat.ts';
import { freePort, ROOT, start, untilReady } from './kit/process.ts';
import { NODE_SETTINGS } from './kit/servers.ts';
import { startLoad } from './load/load.ts';

const CLINIC = `${ROOT}bench/node_modules/clinic/bin.js`;
const PATIENCE_MS = 300_000;
const TOOLS = ['flame', 'doctor'];

const options = benchOptions(process.argv.slice(2), { rounds: 1, seconds: 10 });
const [tool = ''] = options.names;
if (!TOOLS.includes(tool)) throw new Error(`which tool? ${TOOLS.join(' or ')}`);
if (!existsSync(CLINIC)) throw new Error('clinic is not installed: npm ci --prefix bench');

// clinic and V8 write their logs where they run.
const cwd = `${RESULTS}clinic`;
mkdirSync(cwd, { recursive: true });
const port = await freePort();
const node = [process.execPath, '--disable-warning=ExperimentalWarning', `${ROOT}src/main.ts`];
const clinic = start({
  args: [CLINIC, tool, '--open=false', '--dest', '.', '--', ...node],
  core: 'server',
  cwd,
  env: {
    ...NODE_SETTINGS,
    // clinic reports home unless told not to.
    NO_INSIGHT: '1',
    PORT: String(port),
    DEFAULT_MODEL: options.set.model ?? 'offline-50x0',
  },
});
await untilReady(clinic, `http://127.0.0.1:${port}/ready`);

const load = await startLoad();
await load.open({
  ...{ port, dialect: 'json', tenant: 'bench', prefix: 'c', query: '' },
  count: setting(options, 'sessions', 100),
});
const report = await load.run({
  ...{ warmupMs: 1000, durationMs: options.roundMs, pauseMs: 0, errorPauseMs: 10, spreadMs: 500, depth: 1 },
  serverPid: clinic.pid ?? 0,
});
await load.end();
console.log(
  `${Math.round(report.turns / (report.elapsedMs / 1000))} turns/s under clinic ${tool}; it makes its report now`,
);

// As Ctrl+C would: doctor passes the signal on, flame counts on a terminal that signals the node too.
const ended = once(clinic, 'exit');
const nodes = childrenOf(clinic.pid ?? 0);
clinic.kill('SIGINT');
if (tool === 'flame') for (const pid of nodes) process.kill(pid, 'SIGINT');
const hung = setTimeout(() => {
  console.error(`clinic made no report within ${PATIENCE_MS / 1000} s`);
  process.exit(1);
}, PATIENCE_MS);
await ended;
clearTimeout(hung);
console.log(`see ${cwd}`);
