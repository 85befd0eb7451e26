/** Runs one bench as a program: options in, tables and a JSON file out. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type BenchOptions, benchOptions } from './options.ts';
import { resultText } from './print.ts';
import { type BenchFindings, type BenchResult, type Figures, machine } from './result.ts';

/** Where results land: git-ignored. */
export const RESULTS = fileURLToPath(new URL('../results/', import.meta.url));

/** A load average above which figures are not to be quoted. */
const BUSY = 0.7;

interface Bench {
  readonly name: string;
  readonly rounds: number;
  readonly seconds: number;
  run(options: BenchOptions): Promise<BenchFindings>;
}

/** Measures, prints (`--json`: as JSON) and writes `bench/results/<name>.json`. Sets the exit code. */
export async function benchMain(bench: Bench): Promise<void> {
  const options = benchOptions(process.argv.slice(2), bench);
  // A run of several benches looks once, before its first: the later ones would see the earlier.
  const busy = Number(process.env.BENCH_LOAD_BEFORE ?? loadavg()[0]);
  const findings = await bench.run(options);
  const result: BenchResult = {
    bench: bench.name,
    command: ['npm run bench --', bench.name, ...process.argv.slice(2).map(quoted)].join(' '),
    date: new Date().toISOString(),
    quick: options.quick,
    node: process.version,
    machine: machine(),
    ...findings,
    notes:
      busy > BUSY
        ? [
            ...findings.notes,
            `Others used this machine: its load average was ${busy.toFixed(1)} at the start.`,
          ]
        : findings.notes,
  };
  mkdirSync(RESULTS, { recursive: true });
  const json = JSON.stringify(result, null, 2);
  writeFileSync(`${RESULTS}${bench.name}.json`, `${json}\n`);
  process.stdout.write(options.json ? `${json}\n` : resultText(result));
}

/** As a shell would take it. */
const quoted = (arg: string): string => (/^[\w=,./:+-]+$/.test(arg) ? arg : `'${arg}'`);

/** Progress for whoever waits; never on stdout, which may be JSON. */
export const progress = (text: string): void => {
  process.stderr.write(`  ${text}\n`);
};

/**
 * Measures every contender once a round, round after round (A B C A B C …), so that whatever slows the machine
 * for a while slows them all. Returns each one's rounds.
 */
export async function interleaved<C extends { readonly name: string }>(
  contenders: readonly C[],
  rounds: number,
  measure: (contender: C, round: number) => Figures | Promise<Figures>,
): Promise<Map<string, Figures[]>> {
  const results = new Map<string, Figures[]>(contenders.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const contender of contenders) {
      results.get(contender.name)?.push(await measure(contender, round));
    }
  }
  return results;
}
