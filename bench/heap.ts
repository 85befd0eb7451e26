/**
 * What a node's memory is made of, per session: `npm run bench:heap -- --set sessions=500 --set turns=10`.
 * Two heap snapshots, before the sessions and after their turns; the difference by shape of object.
 */
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { RESULTS } from './kit/bench-main.ts';
import { type Shape, shapes } from './kit/heap-snapshot.ts';
import { written } from './kit/numbers.ts';
import { benchOptions, setting } from './kit/options.ts';
import { heard } from './kit/process.ts';
import { SERVERS, startServer } from './kit/servers.ts';
import { startLoad } from './load/load.ts';

const TOP = 40;
const options = benchOptions(process.argv.slice(2), { rounds: 1, seconds: 1 });
const sessions = setting(options, 'sessions', 500);
const each = setting(options, 'turns', 10);
mkdirSync(RESULTS, { recursive: true });
const file = `${RESULTS}nooble.heapsnapshot`;

const kind = {
  ...SERVERS.nooble,
  args: ['--import', './bench/preload/heap-on-signal.ts', ...SERVERS.nooble.args],
};
const server = await startServer(kind, 'offline-50x0', { HEAP_FILE: file });
const load = await startLoad();
const target = { port: server.port, dialect: kind.dialect, tenant: 'bench', query: '' };

async function snapshot(): Promise<Shape[]> {
  const answer = heard(server.child, (message) => message, 120_000);
  server.child.kill('SIGUSR2');
  await answer;
  return shapes(readFileSync(file, 'utf8'));
}

await load.open({ ...target, prefix: 'warm', count: 50 });
await load.turns({ each: 20, concurrency: 50 });
await load.close();
const before = new Map((await snapshot()).map((shape) => [shape.name, shape]));
await load.open({ ...target, prefix: 's', count: sessions });
await load.turns({ each, concurrency: 100 });
const after = await snapshot();
await load.end();
await server.end();
rmSync(file);

const grown = after
  .map(({ name, count, bytes }) => ({
    name,
    count: (count - (before.get(name)?.count ?? 0)) / sessions,
    bytes: (bytes - (before.get(name)?.bytes ?? 0)) / sessions,
  }))
  .sort((a, b) => b.bytes - a.bytes);
const total = grown.reduce((sum, { bytes }) => sum + bytes, 0);
console.log(`${written(total / 1024)} KiB of heap per session after ${each} turns, ${sessions} sessions\n`);
console.log('     bytes     count');
for (const { name, count, bytes } of grown.slice(0, TOP))
  console.log(`${written(bytes).padStart(10)}${written(count).padStart(10)}   ${name}`);
