/** `npm run simulate -- --seeds N [--from N] [--only SEED --trace] [--switch=value …]`: prints what is wrong, and how to see it again. */
import { parseArgs } from 'node:util';
import { DEFAULTS, type SimulationOptions } from './options.ts';
import { simulate } from './simulate.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    only: { type: 'string' },
    trace: { type: 'boolean', default: false },
  },
});

/** `loss=0.03`, `nodes=5`, `ticks=false`: what DEFAULTS has. */
const options: Partial<SimulationOptions> = Object.fromEntries(
  positionals.map((each) => {
    const [name = '', value = ''] = each.split('=');
    if (!(name in DEFAULTS))
      throw new Error(`there is no option ${name}: ${Object.keys(DEFAULTS).join(', ')}`);
    return [name, JSON.parse(value)];
  }),
);

const from = Number(values.only ?? values.from);
const count = values.only === undefined ? Number(values.seeds) : 1;
const begunMs = performance.now();
const total = { turns: 0, faults: 0, torn: 0, events: 0 };
let bad = 0;
for (let seed = from; seed < from + count; seed += 1) {
  const result = simulate(seed, options, values.trace ? (line) => console.log(line) : undefined);
  for (const name of ['turns', 'faults', 'torn', 'events'] as const) total[name] += result[name];
  if (result.problems.length === 0) continue;
  bad += 1;
  for (const { atMs, what, about } of result.problems)
    console.log(`seed ${seed} at ${atMs} ms: ${what} ${JSON.stringify(about)}`);
  console.log(`  replay: npm run simulate -- --only ${seed} --trace ${positionals.join(' ')}`);
}
const seconds = (performance.now() - begunMs) / 1_000;
console.log(
  `${count} seeds, ${total.turns} turns, ${total.faults} faults, ${total.torn} gaps, ${total.events} events; ` +
    `${bad} bad; ${seconds.toFixed(1)} s, ${(count / seconds).toFixed(0)} seeds/s`,
);
process.exitCode = bad > 0 ? 1 : 0;
