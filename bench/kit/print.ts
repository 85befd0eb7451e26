/** Results as text for a terminal and as Markdown for the README. */
import { written } from './numbers.ts';
import { type BenchResult, type Comparison, isMet, type Table } from './result.ts';

const cell = (value: number | null | undefined): string => written(value ?? Number.NaN);

/** Columns padded to their widest cell; the first is left-aligned. */
function aligned(lines: readonly (readonly string[])[]): string {
  const widths = (lines[0] ?? []).map((_, column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0)),
  );
  return lines
    .map((line) =>
      line
        .map((text, i) => (i === 0 ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0)))
        .join('  '),
    )
    .join('\n');
}

function tableText(table: Table): string {
  const first = table.columns[0] ?? '';
  const head = ['', ...table.columns, `rounds: ${first}`];
  const body = table.rows.map(({ name, figures }) => [
    name,
    ...table.columns.map((column) => cell(figures[column]?.median)),
    (figures[first]?.rounds ?? []).map(cell).join(' '),
  ]);
  return `${table.title}\n${aligned([head, ...body])}`;
}

function target({ atLeast, atMost }: Comparison): string {
  if (atLeast !== undefined) return `at least ${written(atLeast)}`;
  return atMost === undefined ? '' : `at most ${written(atMost)}`;
}

function verdict(comparison: Comparison): string {
  const met = isMet(comparison);
  return met === undefined ? '' : met ? 'reached' : 'NOT REACHED';
}

const comparisonCells = (comparison: Comparison): string[] => [
  comparison.name,
  cell(comparison.value),
  target(comparison),
  verdict(comparison),
];

const about = (result: BenchResult): string =>
  `${result.machine.cpu}, ${result.machine.cores} cores, Node ${result.node}, ${result.date}${result.quick ? ', QUICK: rough figures' : ''}`;

/** Everything but the later rounds of secondary figures, which the JSON has. */
export function resultText(result: BenchResult): string {
  const comparisons = aligned(result.comparisons.map(comparisonCells));
  return [
    `\n== ${result.bench} ==`,
    `${about(result)}\n${result.command}`,
    ...result.tables.map(tableText),
    ...(comparisons ? [comparisons] : []),
    ...result.notes.map((note) => `! ${note}`),
    '',
  ].join('\n\n');
}

const markdownRow = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;

function markdownTable(table: Table): string {
  return [
    `**${table.title}**`,
    '',
    markdownRow(['', ...table.columns]),
    markdownRow(['---', ...table.columns.map(() => '---:')]),
    ...table.rows.map(({ name, figures }) =>
      markdownRow([name, ...table.columns.map((column) => cell(figures[column]?.median))]),
    ),
  ].join('\n');
}

/** One bench's section for `bench/README.md`: medians of the rounds, and what they compare to. */
export function resultMarkdown(result: BenchResult): string {
  const comparisons = result.comparisons.map((comparison) => markdownRow(comparisonCells(comparison)));
  return [
    `### ${result.bench}`,
    `\`${result.command}\` · ${about(result)}`,
    ...result.tables.map(markdownTable),
    ...(comparisons.length > 0
      ? [['| | | target | |', '| --- | ---: | --- | --- |', ...comparisons].join('\n')]
      : []),
    ...(result.notes.length > 0 ? [result.notes.map((note) => `- ${note}`).join('\n')] : []),
    '',
  ].join('\n\n');
}
