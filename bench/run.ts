/** `npm run bench [-- names] [--quick] [--json] …`: runs benches one after another, each in a process of its own. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { BENCHES } from './kit/benches.ts';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

const isName = (arg: string): boolean => BENCHES.some((name) => name === arg);
const args = process.argv.slice(2);
const asked = args.filter(isName);
const names = asked.length > 0 ? asked : BENCHES;
const options = args.filter((arg) => !isName(arg));
const json = options.includes('--json');

const stranger = options.find((arg, i) => !arg.startsWith('-') && !options[i - 1]?.startsWith('-'));
if (stranger !== undefined) {
  console.error(`no bench ${stranger}; there are ${BENCHES.join(', ')}`);
  process.exit(2);
}
if (!existsSync(here('node_modules')))
  console.error('The peers are not installed, and left out; for them: npm ci --prefix bench');

const [loadAverage = 0] = loadavg();
let failed = 0;
for (const name of names) {
  console.error(`${name}:`);
  const { status } = spawnSync(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      here(`${name}.ts`),
      ...options.filter((arg) => arg !== '--json'),
    ],
    {
      env: { BENCH_LOAD_BEFORE: String(loadAverage), ...process.env },
      stdio: ['ignore', json ? 'ignore' : 'inherit', 'inherit'],
    },
  );
  if (status !== 0) {
    console.error(`${name} failed`);
    failed += 1;
  }
}
if (json) {
  const results = names.map((name): unknown =>
    JSON.parse(readFileSync(here(`results/${name}.json`), 'utf8')),
  );
  console.log(JSON.stringify(results.length === 1 ? results[0] : results, null, 2));
}
process.exit(failed > 0 ? 1 : 0);
