/** What is counted and timed: cheap on the message path, shown to Prometheus only when it asks. */
import { createHistogram } from 'node:perf_hooks';
import { Counter, type Registry } from 'prom-client';

/** Label values come from models and clients too (tool names, close codes): past this many kinds, the rest is one. */
const MAX_KINDS = 200;
const OTHER = 'other';

interface Tally {
  add(amount: number, ...values: readonly string[]): void;
  /** Sum over everything, or over the kinds whose label at `index` has this value. */
  sum(index?: number, value?: string): number;
  /** Sums by the value of the label at `index`. */
  by(index: number): Readonly<Record<string, number>>;
}

interface Kind {
  readonly values: readonly string[];
  count: number;
}

/** Registers a counter, with its sums in a plain Map, and returns what counts for it. `labels` name the values of `add`, in order. */
export function createTally(
  registry: Registry,
  name: string,
  help: string,
  labels: readonly string[],
): Tally {
  const kinds = new Map<string, Kind>();
  new Counter({
    name,
    help,
    labelNames: labels,
    registers: [registry],
    collect() {
      this.reset();
      for (const kind of kinds.values()) this.inc(labelsOf(labels, kind.values), kind.count);
    },
  });
  const kindOf = (values: readonly string[]): Kind => {
    const key = values.length === 1 ? (values[0] ?? OTHER) : values.join('\u0000');
    const known = kinds.get(key);
    if (known) return known;
    if (kinds.size >= MAX_KINDS && values.some((value) => value !== OTHER))
      return kindOf(values.map(() => OTHER));
    const kind = { values, count: 0 };
    kinds.set(key, kind);
    return kind;
  };
  return {
    add: (amount, ...values) => {
      kindOf(values).count += amount;
    },
    sum: (index, value) => {
      let sum = 0;
      for (const kind of kinds.values())
        if (index === undefined || kind.values[index] === value) sum += kind.count;
      return sum;
    },
    by: (index) => {
      const sums = new Map<string, number>();
      for (const kind of kinds.values()) {
        const value = kind.values[index] ?? OTHER;
        sums.set(value, (sums.get(value) ?? 0) + kind.count);
      }
      return Object.fromEntries(sums);
    },
  };
}

/** Label values beside their names, as prom-client takes them. */
const labelsOf = (
  names: readonly string[],
  values: readonly (string | undefined)[],
): Record<string, string> => Object.fromEntries(names.map((name, index) => [name, values[index] ?? OTHER]));

/** In µs: from the smallest that is told apart to beyond an hour. */
const LOWEST_US = 1;
const HIGHEST_US = 4_000_000_000;
/** Two digits: within 1 %. */
const FIGURES = 2;

interface Quantiles {
  observe(ms: number): void;
  /** The duration in ms that a share (0 to 1) of all observations did not exceed, within 1 %; null before the first. */
  quantile(share: number): number | null;
}

/** Of durations since the start of the node: a histogram of Node's own, 50 ns and no memory an observation. */
export function createQuantiles(): Quantiles {
  const histogram = createHistogram({ lowest: LOWEST_US, highest: HIGHEST_US, figures: FIGURES });
  return {
    observe(ms) {
      const us = Math.round(ms * 1000) || LOWEST_US; // NaN counts as the smallest
      histogram.record(Math.min(HIGHEST_US, Math.max(LOWEST_US, us)));
    },
    quantile: (share) =>
      histogram.count === 0 ? null : Number((histogram.percentile(share * 100) / 1000).toPrecision(3)),
  };
}
