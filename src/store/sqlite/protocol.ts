/** What the node and its SQLite worker say to each other. */
import type { EncodedWrite, Param } from '../encode.ts';
import type { SqliteFailure } from '../failure.ts';

export interface SqliteOptions {
  /** File, or `:memory:`. */
  readonly path: string;
  /** The node that has the file to itself; absent for those who may use it beside one, as commands do. */
  readonly nodeId?: string | undefined;
  /**
   * FULL (default): a commit is on the disk before it is acknowledged, also over a power cut. NORMAL: a power cut
   * (never the death of the process alone) may take back the last commits.
   */
  readonly synchronous?: 'FULL' | 'NORMAL';
  /** How long a statement waits for another process's lock. */
  readonly busyTimeoutMs?: number;
  /** Bound of the file in pages of 4 KiB; for tests of a full disk. */
  readonly maxPages?: number;
}

export type WorkerTask =
  | { readonly type: 'query'; readonly sql: string; readonly params: readonly Param[] }
  | { readonly type: 'batch'; readonly writes: readonly EncodedWrite[] }
  | { readonly type: 'close' };

export type WorkerRequest = WorkerTask & { readonly id: number };

export interface QueryResult {
  readonly rows: readonly unknown[];
  readonly changes: number;
}

export type WorkerReply =
  | { readonly id: number; readonly type: 'result'; readonly result: QueryResult }
  | { readonly id: number; readonly type: 'outcomes'; readonly outcomes: readonly number[] }
  | { readonly id: number; readonly type: 'closed' }
  | { readonly id: number; readonly type: 'failed'; readonly failure: SqliteFailure };
