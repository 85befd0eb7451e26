/** A folder that goes with its test, and a database in it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

export interface Temporary {
  /** For DATABASE_URL. */
  readonly database: string;
  path(name: string): string;
}

/** Makes the folder; it is deleted after the test, once its nodes are closed. */
export function temporary(t: TestContext): Temporary {
  const folder = mkdtempSync(join(tmpdir(), 'nooble-test-'));
  // A hook registered by the first hook runs after all others: nodes have let go of their files by then.
  t.after(() => t.after(() => rmSync(folder, { recursive: true, force: true })));
  const path = (name: string): string => join(folder, name);
  return { path, database: `sqlite:${path('nooble.db')}` };
}
