/** Opens what DATABASE_URL names and makes the stores over it. */

import type { BatchStore, CallbackStore } from '../ports/batches.ts';
import type { ChangeFeed, JobRuns, NodeTable, OwnerTable } from '../ports/cluster.ts';
import type { ClusterAdmin } from '../ports/cluster-admin.ts';
import type { LimitTable } from '../ports/limits.ts';
import type { AgentStore, Archive, TemplateStore, WebhookStore } from '../ports/management.ts';
import type { Store } from '../ports/store.ts';
import type { Clock, Log } from '../ports/telemetry.ts';
import { createAgentStore } from './agents.ts';
import { createArchive } from './archive.ts';
import { createBatchStore } from './batches.ts';
import { createCallbackStore } from './callbacks.ts';
import { createChangeFeed } from './changes.ts';
import { openDatabaseClock } from './clock.ts';
import { createConversations } from './conversations.ts';
import type { Database } from './database.ts';
import { type GuardOptions, guarded } from './guarded.ts';
import { createJobRuns } from './jobs.ts';
import { createClusterAdmin } from './postgres/cluster-admin.ts';
import { createPostgresLimits } from './postgres/limits.ts';
import { openPostgres, type PostgresDatabase } from './postgres/open.ts';
import { openSqlite } from './sqlite/open.ts';
import { createTemplateStore } from './templates.ts';
import { createWebhookStore } from './webhooks.ts';

interface StoreOptions {
  /** `sqlite:path`, `sqlite::memory:`, or `postgres://user:password@host/database`. */
  readonly url: string;
  readonly log: Log;
  /** Who opens it as a node, and then has a SQLite file to itself; absent for commands, which work beside a node. */
  readonly nodeId?: string;
  readonly guard?: Omit<GuardOptions, 'log'>;
}

export interface Stores {
  readonly conversations: Store;
  readonly agents: AgentStore;
  readonly templates: TemplateStore;
  readonly webhooks: WebhookStore;
  readonly batches: BatchStore;
  readonly callbacks: CallbackStore;
  readonly archive: Archive;
  /** The nodes that share the database; absent where one has it to itself. */
  readonly nodes?: NodeTable;
  /** As an operator sees them. */
  readonly cluster?: ClusterAdmin;
  /** Which of them has a session; there with `nodes`. */
  readonly owners?: OwnerTable;
  /** The limits that these nodes share; absent with them. */
  readonly limits?: LimitTable;
  /** What other nodes store; absent as well. */
  readonly changes?: ChangeFeed;
  readonly jobs?: JobRuns;
  /** What is due on all nodes is due by this clock; absent: by the node's own. */
  readonly clock?: Clock;
  /** Finishes the writes that were begun, then closes the database; `conversations` with it. Safe to call twice. */
  close(): Promise<void>;
}

/**
 * Opens a database, makes the folder of its file, and brings its schema up to date. Rejects with a line that names
 * the database, without its password, and what is wrong; where another node has it, with that node's name.
 */
export async function openStores({ url, log, nodeId, guard = {} }: StoreOptions): Promise<Stores> {
  const opened = await openDatabase(url, log, nodeId).catch((error: unknown) => {
    throw new Error(`the database ${withoutPassword(url)} can not be opened: ${reasonOf(error)}`, {
      cause: error,
    });
  });
  const database = guarded(opened, { ...guard, log });
  const shared = 'nodes' in opened ? await sharedOf(opened, log) : undefined;
  const conversations = createConversations(database, {}, { log });
  let closing: Promise<void> | undefined;
  return {
    conversations,
    agents: createAgentStore(database),
    templates: createTemplateStore(database),
    webhooks: createWebhookStore(database, shared?.clock.now),
    batches: createBatchStore(database, Date.now, opened),
    callbacks: createCallbackStore(database, Date.now, opened),
    archive: createArchive(database),
    ...('nodes' in database
      ? {
          ...{ nodes: database.nodes, owners: database.owners, cluster: createClusterAdmin(database) },
          limits: createPostgresLimits(database, database.fence),
        }
      : {}),
    ...shared,
    close() {
      shared?.clock.close();
      closing ??= conversations.close().then(() => opened.close());
      return closing;
    },
  };
}

/** What only nodes that share a database have. Not guarded: what nobody waits for is no sign of an outage to others. */
async function sharedOf(opened: PostgresDatabase, log: Log) {
  const clock = await openDatabaseClock(opened, log).catch(async (error: unknown) => {
    await opened.close();
    throw error;
  });
  return { changes: createChangeFeed(opened), jobs: createJobRuns(opened), clock };
}

function openDatabase(
  url: string,
  log: Log,
  nodeId: string | undefined,
): Promise<Database | PostgresDatabase> {
  if (/^postgres(ql)?:\/\//.test(url)) return openPostgres({ url }, log);
  const path = /^sqlite:(?:\/\/(?=\/))?(.+)$/.exec(url)?.[1];
  if (path !== undefined) return openSqlite({ path, nodeId }, log);
  return Promise.reject(new Error('it must be sqlite:path, sqlite::memory: or postgres://…'));
}

const withoutPassword = (url: string): string => url.replace(/(\/\/[^:/@]*):[^@]*@/, '$1:…@');

/** The database's own words, which clients do not see. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message || String(error.cause) : error.message;
}
