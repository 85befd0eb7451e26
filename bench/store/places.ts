/** Where the store bench keeps its databases: SQLite files in a temporary folder, a PostgreSQL server of its own. */
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { quantiles, written } from '../kit/numbers.ts';
import { type DurablePostgres, startDurablePostgres } from '../kit/postgres.ts';

export const SQLITE = 'SQLite';
export const POSTGRES = 'PostgreSQL';

/** A kind of database that the bench can make as many of as it likes. */
export interface Place {
  readonly name: typeof SQLITE | typeof POSTGRES;
  /** The DATABASE_URL of a new, empty one. */
  url(): Promise<string>;
}

export interface Places {
  /** PostgreSQL only where it is installed. */
  readonly durable: readonly Place[];
  readonly postgres: DurablePostgres | undefined;
  /** What was found and what was left out. */
  readonly notes: readonly string[];
  /** Ends the server and deletes everything. */
  close(): Promise<void>;
}

/** A page as databases write it, and how often one is written to know the disk. */
const PAGE_BYTES = 4096;
const PAGES = 200;

/**
 * Makes the folder and starts PostgreSQL; without it there is a note and SQLite. `only` names the places that are
 * wanted; none: all.
 */
export async function openPlaces(only: readonly string[]): Promise<Places> {
  const isWanted = (name: string): boolean => only.length === 0 || only.includes(name);
  const folder = mkdtempSync(join(tmpdir(), 'nooble-bench-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  process.once('exit', remove);
  const notes = [diskNote(folder)];
  let postgres: DurablePostgres | undefined;
  try {
    if (isWanted(POSTGRES)) postgres = await startDurablePostgres();
    if (postgres)
      notes.push(
        `PostgreSQL ${postgres.version} with the settings it comes with, fsync on, on the load's core, as if on another machine.`,
      );
  } catch (error) {
    notes.push(`PostgreSQL left out: ${error instanceof Error ? error.message : String(error)}`);
  }
  let files = 0;
  const sqlite: Place = {
    name: SQLITE,
    async url() {
      files += 1;
      return `sqlite:${join(folder, `${files}.db`)}`;
    },
  };
  const server = postgres;
  return {
    durable: [
      ...(isWanted(SQLITE) ? [sqlite] : []),
      ...(server ? [{ name: POSTGRES, url: () => server.database() } as const] : []),
    ],
    postgres,
    notes,
    async close() {
      await postgres?.close();
      remove();
      process.off('exit', remove);
    },
  };
}

/** No commit can be faster than the disk: its own figure stands beside them. */
function diskNote(folder: string): string {
  const file = openSync(join(folder, 'disk'), 'w');
  const page = Buffer.alloc(PAGE_BYTES, 1);
  const tookMs: number[] = [];
  try {
    for (let i = 0; i < PAGES; i++) {
      const fromMs = performance.now();
      writeSync(file, page);
      fdatasyncSync(file);
      tookMs.push(performance.now() - fromMs);
    }
  } finally {
    closeSync(file);
  }
  const { p50, p99 } = quantiles(tookMs);
  return `The disk under ${tmpdir()}: ${PAGE_BYTES} bytes written and synced (fdatasync) in ${written(p50)} ms at p50, ${written(p99)} ms at p99.`;
}
