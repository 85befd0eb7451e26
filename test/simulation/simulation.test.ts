/**
 * A bounded number of seeds of the simulated cluster, for which all must hold; and parts of the protocol taken away, one
 * at a time, which the oracle must find: what it would not miss proves nothing. A seed that fails is named, with how to
 * see it again; `npm run simulate` takes as many as one likes.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SimulationOptions } from './options.ts';
import { simulate } from './simulate.ts';

/** Trouble and quiet are shorter than by default, so that more seeds are seen. */
const SHORT = { troubleMs: 20_000, quietMs: 40_000 };
const HARSH = { ...SHORT, nodes: 5, sessions: 5, clients: 8, loss: 0.02, slow: 0.03 };

/** The first seed for which something is wrong, and what. */
function firstBad(from: number, count: number, options: Partial<SimulationOptions>): string | undefined {
  for (let seed = from; seed < from + count; seed += 1) {
    const [problem] = simulate(seed, options).problems;
    const settings = Object.entries(options).map(([name, value]) => `${name}=${value}`);
    if (problem)
      return `${problem.what} ${JSON.stringify(problem.about)}: npm run simulate -- --only ${seed} --trace ${settings.join(' ')}`;
  }
  return undefined;
}

/** With those of the harsher tests 2,000. */
const SEEDS = 1_800;

test(`${SEEDS} seeds of three nodes: nothing acknowledged is lost, nothing is done twice, and all come back`, () => {
  assert.equal(firstBad(1, SEEDS, SHORT), undefined);
});

test('100 seeds of five nodes with slow answers and many losses', () => {
  assert.equal(firstBad(10_000, 100, HARSH), undefined);
});

test('100 seeds in which what an earlier boot began comes late to the store', () => {
  assert.equal(firstBad(20_000, 100, { ...SHORT, slow: 0.06, zombies: true }), undefined);
});

test('a seed is the same each time', () => {
  const lines = (): readonly string[] => {
    const all: string[] = [];
    simulate(7, SHORT, (line) => all.push(line));
    return all;
  };
  assert.deepEqual(lines(), lines());
});

/** What is found where a part is missing, within so many seeds. */
const MISSING: readonly (readonly [
  part: Partial<SimulationOptions>,
  what: RegExp,
  seeds: number,
  more?: Partial<SimulationOptions>,
])[] = [
  [{ gate: false }, /an effect/, 40],
  [{ gaps: false }, /gap or a repeat|never told|come back/, 40],
  [{ lock: false }, /superseded owner|still runs|never ended|never told/, 400, { slow: 0.06 }],
  [{ turnEpoch: false }, /superseded owner/, 40, { zombies: true, slow: 0.06 }],
  [{ ticks: false }, /never told|gap or a repeat/, 100],
  [{ peersLost: false }, /guest is left/, 100],
  [{ settle: false }, /never ended/, 400, { slow: 0.06 }],
];

for (const [part, what, seeds, more] of MISSING)
  test(`without ${Object.keys(part).join()} the oracle finds a fault`, () => {
    assert.match(
      firstBad(1, seeds, { ...HARSH, ...{ troubleMs: 30_000, quietMs: 45_000 }, ...more, ...part }) ??
        'nothing',
      what,
    );
  });
