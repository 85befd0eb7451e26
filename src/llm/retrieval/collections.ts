/** Collections of texts that tenants can look things up in: folders, read and searched in a thread of their own. */
import { resolve } from 'node:path';
import { RefusalError, refusal } from '../../domain/errors.ts';
import type { TenantId } from '../../domain/ids.ts';
import type { Collections } from '../../ports/peers.ts';
import type { Log } from '../../ports/telemetry.ts';
import { createWorkerPool, WorkerPoolError, type WorkerPoolFault } from '../worker-pool.ts';
import { isFolderName } from './folder.ts';
import { type SearchQuery, type SearchReply, searchReplySchema } from './messages.ts';

/**
 * One query may read for so long, or one file; then it is told to come again, and others have their turn. What it has
 * read is kept. Measured: 1.2 MB of text a second, and 8 bytes of memory for each of text.
 */
const READ_MS = 1_000;
/** A query whose thread is silent for so long ends it; with it goes what it holds in memory. */
const DEADLINE_MS = 10_000;
const START_DEADLINE_MS = 20_000;
/** Queries that may wait for the thread, of all tenants and of one. */
const MAX_WAITING = 200;
const MAX_WAITING_OF_ONE = 20;
/** Warnings of files left out that are not repeated. */
const MAX_SAID = 1_000;
const LIMITS = { maxOldGenerationSizeMb: 768, maxYoungGenerationSizeMb: 32, stackSizeMb: 4 };

interface CollectionsOptions {
  /** COLLECTIONS_DIR; it need not be there. */
  readonly folder: string;
  readonly log: Log;
  readonly readMs?: number;
  readonly deadlineMs?: number;
}

/** `{folder}/{tenant_id}/{collection}/*.{md,txt}`; the thread starts with the first query. */
export function createCollections(options: CollectionsOptions): Collections {
  const { log } = options;
  const line = createWorkerPool<SearchQuery, SearchReply>({
    url: new URL('./search-worker.ts', import.meta.url),
    limits: LIMITS,
    deadlineMs: options.deadlineMs ?? DEADLINE_MS,
    startDeadlineMs: START_DEADLINE_MS,
    maxWaiting: MAX_WAITING,
    reply: searchReplySchema,
    data: { root: resolve(options.folder), readMs: options.readMs ?? READ_MS },
  });
  /** Queries of each tenant that wait or run. */
  const asked = new Map<TenantId, number>();
  const said = new Set<string>();

  async function ask(query: SearchQuery, tenantId: TenantId, signal?: AbortSignal): Promise<SearchReply> {
    const before = asked.get(tenantId) ?? 0;
    if (before >= MAX_WAITING_OF_ONE) throw refused('busy');
    asked.set(tenantId, before + 1);
    try {
      return await line.run(query, signal);
    } catch (error) {
      if (!(error instanceof WorkerPoolError)) throw error;
      if (LOGGED.has(error.fault)) log.warn({ fault: error.fault, tenant_id: tenantId }, 'a query failed');
      throw refused(error.fault);
    } finally {
      const left = (asked.get(tenantId) ?? 1) - 1;
      if (left > 0) asked.set(tenantId, left);
      else asked.delete(tenantId);
    }
  }

  /** Once for each number of files, not with each question. */
  function sayLeftOut({ tenant, collections }: SearchQuery, files: number): void {
    const key = `${tenant}/${collections.join('/')} ${files}`;
    if (files === 0 || said.has(key)) return;
    if (said.size >= MAX_SAID) said.clear();
    said.add(key);
    log.warn({ tenant_id: tenant, collections, files }, 'files of a collection are left out');
  }

  return {
    async query(tenantId, { text, collections, limit, signal }) {
      const wrong = [tenantId, ...collections].find((name) => !isFolderName(name));
      if (wrong !== undefined) throw notAName();
      if (collections.length === 0) return [];
      const query = { tenant: tenantId, collections: [...collections], text, limit };
      const reply = await ask(query, tenantId, signal);
      switch (reply.type) {
        case 'found':
          sayLeftOut(query, reply.leftOut);
          return reply.passages;
        case 'reading':
          throw new RefusalError(
            refusal('OVERLOADED', {
              message: `The collection ${reply.collection} is still being read; ask again.`,
              retryAfterMs: 1_000,
            }),
          );
        case 'refused':
          log.error({ tenant_id: tenantId, problem: reply.problem }, 'a query broke down');
          throw new RefusalError(refusal('INTERNAL'));
      }
    },
    close: () => line.close(),
  };
}

const LOGGED: ReadonlySet<WorkerPoolFault> = new Set(['late', 'memory', 'crashed', 'stopped', 'start']);

function refused(fault: WorkerPoolFault): RefusalError {
  switch (fault) {
    case 'cancelled':
      return new RefusalError(refusal('INTERRUPTED', { message: 'The query was called off.' }));
    case 'busy':
      return new RefusalError(refusal('OVERLOADED', { retryAfterMs: 1_000 }));
    case 'closed':
      return new RefusalError(refusal('DRAINING'));
    case 'late':
    case 'start':
      return new RefusalError(
        refusal('PEER_TIMEOUT', { message: 'The collections were not searched in time.' }),
      );
    case 'memory':
    case 'crashed':
    case 'stopped':
      return new RefusalError(refusal('INTERNAL'));
  }
}

const notAName = (): RefusalError =>
  new RefusalError(refusal('INVALID_REQUEST', { message: 'That is no name of a collection.' }));
