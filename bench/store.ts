/** What must outlive the process: commits, chat turns, waking sessions and agent updates on SQLite and PostgreSQL. */
import { benchMain } from './kit/bench-main.ts';
import type { BenchOptions } from './kit/options.ts';
import { pinning } from './kit/process.ts';
import type { BenchFindings, Comparison, Table } from './kit/result.ts';
import { type Load, startLoad } from './load/load.ts';
import { activationPart } from './store/activation.ts';
import { commitPart } from './store/commit.ts';
import { openPlaces, type Places } from './store/places.ts';
import { turnPart } from './store/turn.ts';
import { updatePart } from './store/update.ts';

interface Found {
  readonly tables: readonly Table[];
  readonly comparisons?: readonly Comparison[];
}

type Part = (places: Places, options: BenchOptions, load: Load, notes: string[]) => Promise<Found>;

/** `--set part=turn` runs one of them; `--only SQLite` leaves the other database out. */
const PARTS: Readonly<Record<string, Part>> = {
  commit: commitPart,
  turn: turnPart,
  activation: activationPart,
  update: updatePart,
};

async function run(options: BenchOptions): Promise<BenchFindings> {
  const wanted = options.set.part;
  const parts = Object.entries(PARTS).filter(([name]) => wanted === undefined || name === wanted);
  if (parts.length === 0) throw new Error(`no part ${wanted}; there are ${Object.keys(PARTS).join(', ')}`);
  const notes = [
    pinning(),
    "Commits are made by the bench's own process, which is not pinned: SQLite's thread may have the other core.",
  ];
  const places = await openPlaces(options.only);
  notes.push(...places.notes);
  try {
    const load = await startLoad();
    try {
      const found: Found[] = [];
      for (const [, part] of parts) found.push(await part(places, options, load, notes));
      return {
        tables: found.flatMap(({ tables }) => tables),
        comparisons: found.flatMap(({ comparisons = [] }) => comparisons),
        notes: [...new Set(notes)],
      };
    } finally {
      await load.end();
    }
  } finally {
    await places.close();
  }
}

await benchMain({ name: 'store', rounds: 5, seconds: 4, run });
