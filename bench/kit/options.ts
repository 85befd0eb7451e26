/** What a bench was asked for on its command line. */
import { parseArgs } from 'node:util';

export interface BenchOptions {
  /** Short rounds, to see that a bench works: its figures are rough. */
  readonly quick: boolean;
  /** Prints the result as JSON to stdout instead of tables. */
  readonly json: boolean;
  readonly rounds: number;
  /** Length of one measured round, in ms. */
  readonly roundMs: number;
  /** Names of contenders to keep; empty: all. */
  readonly only: readonly string[];
  /** What follows the options that every bench has: `--set name=value`. */
  readonly set: Readonly<Record<string, string>>;
  readonly names: readonly string[];
}

/**
 * Reads `argv`: `--quick --json --rounds N --seconds S --only a,b --set name=value` and names.
 * Throws on an option it does not know.
 */
export function benchOptions(
  argv: readonly string[],
  defaults: { rounds: number; seconds: number },
): BenchOptions {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      only: { type: 'string', default: '' },
      set: { type: 'string', multiple: true, default: [] },
    },
  });
  const quickOr = (quick: number, full: number): number => (values.quick ? quick : full);
  const pairs = values.set.map((pair): [string, string] => {
    const [name = '', ...rest] = pair.split('=');
    return [name, rest.join('=')];
  });
  return {
    quick: values.quick,
    json: values.json,
    rounds: positive(values.rounds, quickOr(2, defaults.rounds)),
    roundMs: positive(values.seconds, quickOr(Math.min(1, defaults.seconds), defaults.seconds)) * 1000,
    only: values.only.split(',').filter(Boolean),
    set: Object.fromEntries(pairs),
    names: positionals,
  };
}

function positive(text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  const value = Number(text);
  if (!(value > 0)) throw new Error(`not a positive number: ${text}`);
  return value;
}

/** A number given as `--set name=value`, or the fallback. */
export const setting = (options: BenchOptions, name: string, fallback: number): number =>
  positive(options.set[name], fallback);
