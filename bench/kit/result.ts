/** The form of a bench's result: what is printed, written as JSON, and rendered by `report.ts`. */
import { cpus, totalmem } from 'node:os';
import { z } from 'zod';
import { median } from './numbers.ts';

const seriesSchema = z.object({ median: z.number().nullable(), rounds: z.array(z.number().nullable()) });

const tableSchema = z.object({
  title: z.string(),
  /** Figures in the order they are shown; the unit stands in the name. The first one has its rounds printed. */
  columns: z.array(z.string()),
  rows: z.array(z.object({ name: z.string(), figures: z.record(z.string(), seriesSchema) })),
});

/** A figure of ours over (or under) a floor, a peer, or itself elsewhere: from medians of the same run. */
const comparisonSchema = z.object({
  name: z.string(),
  value: z.number().nullable(),
  /** The target, as far as the project set one. */
  atLeast: z.number().optional(),
  atMost: z.number().optional(),
});

export const resultSchema = z.object({
  bench: z.string(),
  command: z.string(),
  date: z.iso.datetime(),
  quick: z.boolean(),
  node: z.string(),
  machine: z.object({ cpu: z.string(), cores: z.number(), memoryMiB: z.number(), platform: z.string() }),
  tables: z.array(tableSchema),
  comparisons: z.array(comparisonSchema),
  /** What a reader must know about this run: warnings, what was left out. */
  notes: z.array(z.string()),
});

export type Series = z.infer<typeof seriesSchema>;
export type Table = z.infer<typeof tableSchema>;
export type Comparison = z.infer<typeof comparisonSchema>;
export type BenchResult = z.infer<typeof resultSchema>;

/** What a bench itself finds out; `bench-main.ts` adds where, when and how. */
export type BenchFindings = Pick<BenchResult, 'tables' | 'comparisons' | 'notes'>;

/** One round's figures of one contender. */
export type Figures = Readonly<Record<string, number>>;

/** JSON has no NaN: a figure that a round could not give is null. */
const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);

/** Makes a table of the rounds of each contender; a column no round has stays empty. */
export function tableOf(
  title: string,
  columns: readonly string[],
  rounds: ReadonlyMap<string, readonly Figures[]>,
): Table {
  const rows = [...rounds].map(([name, samples]) => ({
    name,
    figures: Object.fromEntries(
      columns.map((column): [string, Series] => {
        const values = samples.map((sample) => sample[column] ?? Number.NaN);
        return [column, { median: finite(median(values)), rounds: values.map(finite) }];
      }),
    ),
  }));
  return { title, columns: [...columns], rows };
}

/** The median of a row's column, or NaN. */
export const medianOf = (table: Table, row: string, column: string): number =>
  table.rows.find(({ name }) => name === row)?.figures[column]?.median ?? Number.NaN;

/** A comparison, left out where either side was not measured. */
export function compared(
  name: string,
  value: number,
  target: { atLeast?: number; atMost?: number } = {},
): readonly Comparison[] {
  return Number.isFinite(value) ? [{ name, value, ...target }] : [];
}

/** Undefined where no target was set. */
export function isMet({ value, atLeast, atMost }: Comparison): boolean | undefined {
  if (value === null || (atLeast === undefined && atMost === undefined)) return undefined;
  return value >= (atLeast ?? Number.NEGATIVE_INFINITY) && value <= (atMost ?? Number.POSITIVE_INFINITY);
}

/** The machine as the results name it. */
export const machine = (): BenchResult['machine'] => ({
  cpu: cpus()[0]?.model.trim() ?? 'unknown',
  cores: cpus().length,
  memoryMiB: Math.round(totalmem() / 2 ** 20),
  platform: `${process.platform} ${process.arch}`,
});
