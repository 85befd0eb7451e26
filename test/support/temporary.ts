/** A folder that goes with its test, and a database in it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

export interface Temporary {
  readonly folder: string;
  /** For DATABASE_URL. */
  readonly database: string;
  path(name: string): string;
  /** Writes a file, and returns its path. */
  write(name: string, text: string): string;
}

/** Makes the folder; it is deleted after the test, once its nodes are closed. */
export function temporary(t: TestContext): Temporary {
  const folder = mkdtempSync(join(tmpdir(), 'nooble-test-'));
  // A hook registered by the first hook runs after all others: nodes have let go of their files by then.
  t.after(() => t.after(() => rmSync(folder, { recursive: true, force: true })));
  const path = (name: string): string => join(folder, name);
  const write = (name: string, text: string): string => {
    writeFileSync(path(name), text);
    return path(name);
  };
  return { folder, path, database: `sqlite:${path('nooble.db')}`, write };
}
