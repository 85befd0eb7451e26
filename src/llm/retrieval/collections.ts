/** Collections of texts that tenants can look things up in: folders, read and searched in a thread of their own. */
import { resolve } from 'node:path';
import { LRUCache } from 'lru-cache';
import { type RefusalError, refusalError } from '../../domain/errors.ts';
import type { TenantId } from '../../domain/ids.ts';
import type { Collections } from '../../ports/peers.ts';
import type { Log } from '../../ports/telemetry.ts';
import { createWorkerPool, WorkerPoolError, type WorkerPoolFault } from '../worker-pool.ts';
import { isFolderName } from './folder.ts';
import { type SearchQuery, type SearchReply, searchReplySchema } from './messages.ts';

/**
 * Time one query may read files, or one file where that takes longer: then it is refused, to be asked again, and others
 * have their turn; the next one goes on from there. Measured: 1.2 MB of text a second, 8 bytes of memory for each byte.
 */
const READ_MS = 1_000;
/** A thread that is silent for so long ends, and its memory of collections with it. */
const DEADLINE_MS = 10_000;
const START_DEADLINE_MS = 20_000;
/** Queries that may wait for the thread, of all tenants and of one. */
const MAX_WAITING = 200;
const MAX_WAITING_OF_ONE = 19;
/** Warnings of files left out that are remembered, not to be repeated. */
const MAX_WARNINGS = 1_000;
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
  const pool = createWorkerPool<SearchQuery, SearchReply>({
    url: new URL('./search-worker.ts', import.meta.url),
    limits: LIMITS,
    deadlineMs: options.deadlineMs ?? DEADLINE_MS,
    startDeadlineMs: START_DEADLINE_MS,
    threads: 1,
    maxWaiting: MAX_WAITING,
    maxWaitingOfOne: MAX_WAITING_OF_ONE,
    reply: searchReplySchema,
    data: { root: resolve(options.folder), readMs: options.readMs ?? READ_MS },
  });
  const warned = new LRUCache<string, true>({ max: MAX_WARNINGS });

  /** Once for each number of files, not with each question. */
  function warnLeftOut({ tenant, collections }: SearchQuery, files: number): void {
    const key = `${tenant}/${collections.join('/')} ${files}`;
    if (files === 0 || warned.get(key)) return;
    warned.set(key, true);
    log.warn({ tenant_id: tenant, collections, files }, 'files of a collection are left out');
  }

  async function ask(query: SearchQuery, tenantId: TenantId, signal?: AbortSignal): Promise<SearchReply> {
    try {
      return await pool.run(query, tenantId, signal);
    } catch (error) {
      if (!(error instanceof WorkerPoolError)) throw error;
      if (LOGGED.has(error.fault)) log.warn({ fault: error.fault, tenant_id: tenantId }, 'a query failed');
      throw refused(error.fault);
    }
  }

  return {
    async query(tenantId, { text, collections, limit, signal }) {
      if (![tenantId, ...collections].every(isFolderName)) throw notAName();
      if (collections.length === 0) return [];
      const query = { tenant: tenantId, collections: [...collections], text, limit };
      const reply = await ask(query, tenantId, signal);
      switch (reply.type) {
        case 'found':
          warnLeftOut(query, reply.leftOut);
          return reply.passages;
        case 'reading':
          throw refusalError('OVERLOADED', {
            message: `The collection ${reply.collection} is still being read; ask again.`,
            retryAfterMs: 1_000,
          });
        case 'refused':
          log.error({ tenant_id: tenantId, problem: reply.problem }, 'a query broke down');
          throw refusalError('INTERNAL');
      }
    },
    close: () => pool.close(),
  };
}

const LOGGED: ReadonlySet<WorkerPoolFault> = new Set(['late', 'memory', 'crashed', 'stopped', 'start']);

function refused(fault: WorkerPoolFault): RefusalError {
  switch (fault) {
    case 'cancelled':
      return refusalError('INTERRUPTED', { message: 'The query was called off.' });
    case 'busy':
      return refusalError('OVERLOADED', { retryAfterMs: 1_000 });
    case 'closed':
      return refusalError('DRAINING');
    case 'late':
    case 'start':
      return refusalError('PEER_TIMEOUT', { message: 'The collections were not searched in time.' });
    case 'memory':
    case 'crashed':
    case 'stopped':
      return refusalError('INTERNAL');
  }
}

const notAName = (): RefusalError =>
  refusalError('INVALID_REQUEST', { message: 'That is no name of a collection.' });
