/** The Store over a database: turns, messages, tenants. Writes go through group commit, reads wait for them. */
import type { TaskId, TenantId } from '../domain/ids.ts';
import { tierSchema } from '../domain/tiers.ts';
import type { TurnRecord } from '../domain/turn.ts';
import type { Store, TenantRecord, Write, WriteOutcome } from '../ports/store.ts';
import type { Log } from '../ports/telemetry.ts';
import { createAcceptances } from './acceptances.ts';
import { createActionLog } from './action-log.ts';
import type { Database } from './database.ts';
import {
  type EncodedWrite,
  encodeAccepted,
  encodeEnded,
  encodeOutgoing,
  epochOf,
  FENCED,
  OVER,
  sizeOf,
  type TurnKey,
  turnOf,
} from './encode.ts';
import { interruptedError, isUnsettled, unavailable } from './failure.ts';
import { createGroupCommit, type GroupCommitLimits } from './group-commit.ts';
import { createSessionPages } from './session-pages.ts';

/** Sessions that one transaction of `history-expired` deletes; other writes go in between. */
const EXPIRE_AT_ONCE = 100;
/** Outgoing messages that one transaction of `outgoing-expired` deletes. */
const FORGET_AT_ONCE = 500;
/** So long, and this often, a write whose answer was lost is made again. */
const PATIENCE_MS = 5_000;
const AGAIN_MS = 200;

/**
 * Makes the store; `database` stays the caller's to close. Reads see every write that was called before them: they
 * wait until the group commit has settled what it had by then. `now`: when outgoing messages are stored, in ms.
 */
export function createConversations(
  database: Database,
  limits: Partial<GroupCommitLimits> = {},
  { now = Date.now, log }: { readonly now?: () => number; readonly log?: Log } = {},
): Store {
  const actions = createActionLog(database, log);
  const commits = createGroupCommit<EncodedWrite, number>({ apply: database.batch, sizeOf, limits });
  const acceptances = createAcceptances({
    find: ({ tenantId, taskId }) => turn(tenantId, taskId),
    withdraw: (gone) =>
      commits.add({ kind: 'withdrawn', row: { ...turnKey(gone), created_at: gone.createdAtMs } }),
    log,
  });
  const pages = createSessionPages(database);
  let closed = false;

  const turn = (tenantId: TenantId, taskId: TaskId): Promise<TurnRecord | null> =>
    database.read(tenantId, async (db) => {
      const row = await db
        .selectFrom('turns')
        .selectAll()
        .where('tenant_id', '=', tenantId)
        .where('task_id', '=', taskId)
        .executeTakeFirst();
      return row ? turnOf(row) : null;
    });

  async function read<T>(body: () => Promise<T>): Promise<T> {
    if (closed) throw unavailable('The store is closed.');
    await commits.settled();
    return body();
  }

  /** Deletes chunk by chunk, so that other writes go in between. */
  async function inChunks(chunk: Extract<EncodedWrite, { kind: 'expired' | 'forgotten' }>): Promise<void> {
    while ((await commits.add(chunk)) >= chunk.row.most);
  }

  async function commit(write: Write): Promise<WriteOutcome> {
    if (write.type === 'history-expired')
      await inChunks({
        kind: 'expired',
        row: { tier: write.tier, before_ms: write.beforeMs, most: EXPIRE_AT_ONCE },
      });
    else if (write.type === 'outgoing-expired')
      await inChunks({ kind: 'forgotten', row: { before_ms: write.beforeMs, most: FORGET_AT_ONCE } });
    else if (write.type === 'turn-accepted') return accept(write);
    else if (write.type === 'session-deleted' || write.type === 'tenant-tier')
      return outcomeOf(await again(() => commits.add(encode(write, now))));
    else if (write.type === 'session-released') return release(write);
    else return outcomeOf(await commits.add(encode(write, now)));
    return 'stored';
  }

  /** A turn that may stand in it though it was refused is taken back first: the next owner would take it for one that runs. */
  async function release(write: Extract<Write, { type: 'session-released' }>): Promise<WriteOutcome> {
    for (const { tenantId, sessionId } of acceptances.doubtful.values())
      if (tenantId === write.tenantId && sessionId === write.sessionId)
        throw unavailable('A turn of the session is to be taken back first.');
    return outcomeOf(await again(() => commits.add(encode(write, now))));
  }

  /** What may have been stored though its answer was lost, and may be stored twice, is: whoever asked is told the truth. */
  async function again(write: () => Promise<number>): Promise<number> {
    const untilMs = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        return await write();
      } catch (error) {
        if (!isUnsettled(error) || closed || performance.now() > untilMs) throw error;
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }

  /** In the tick of the call, what must be taken back before it. */
  async function accept(write: Extract<Write, { type: 'turn-accepted' }>): Promise<WriteOutcome> {
    if (acceptances.doubtful.size > 0) acceptances.withdraw();
    try {
      return outcomeOf(await commits.add(encode(write, now)));
    } catch (error) {
      if (!isUnsettled(error)) throw error;
      return acceptances.settle(write, error);
    }
  }

  return {
    tenant: (tenantId, day) => read(() => tenantRecord(database, tenantId, day)),
    session: (tenantId, sessionId, page) => read(() => pages(tenantId, sessionId, page)),
    turn: (tenantId, taskId) => read(() => turn(tenantId, taskId)),
    answered: (tenantId, actionId) => read(() => actions.answered(tenantId, actionId)),
    unsent: (afterSeq, limit) => read(() => actions.unsent(afterSeq, limit)),
    commit,
    async ping() {
      if (closed) throw unavailable('The store is closed.');
      await database.batch([{ kind: 'probe' }]);
    },
    async close() {
      closed = true;
      acceptances.close();
      await commits.close();
    },
  };
}

const OUTCOMES: ReadonlyMap<number, WriteOutcome> = new Map([
  [0, 'duplicate'],
  [FENCED, 'fenced'],
  [OVER, 'over'],
]);
const outcomeOf = (outcome: number): WriteOutcome => OUTCOMES.get(outcome) ?? 'stored';

type Single = Exclude<Write, { type: 'history-expired' | 'outgoing-expired' }>;

function encode(write: Single, now: () => number): EncodedWrite {
  switch (write.type) {
    case 'turn-accepted':
      return encodeAccepted(write);
    case 'turn-ended':
      return encodeEnded(write, now());
    case 'turn-effects':
      return { kind: 'effects', row: { ...turnKey(write), ...epochOf(write) } };
    case 'turn-overtaken':
      return { kind: 'overtaken', row: { ...turnKey(write), ...epochOf(write) } };
    case 'turn-notified':
      return { kind: 'notified', row: { ...turnKey(write), ...epochOf(write) } };
    case 'outgoing': {
      const atMs = now();
      return { kind: 'outgoing', outgoing: write.outgoing.map((each) => encodeOutgoing(each, atMs)) };
    }
    case 'outgoing-sent':
      return { kind: 'sent', sent: write.sent.map(({ tenantId, id }) => ({ tenant_id: tenantId, id })) };
    case 'session-deleted':
    case 'session-released':
      return {
        kind: write.type === 'session-deleted' ? 'deleted' : 'released',
        row: { tenant_id: write.tenantId, session_id: write.sessionId, ...epochOf(write) },
      };
    case 'tenant-tier':
      return { kind: 'tier', row: { tenant_id: write.tenantId, tier: write.tier } };
    case 'unfinished-interrupted':
      return { kind: 'interrupted', row: { finished_at: write.atMs, error: interruptedError } };
  }
}

const turnKey = ({ tenantId, taskId }: Pick<TurnRecord, 'tenantId' | 'taskId'>): TurnKey => ({
  tenant_id: tenantId,
  task_id: taskId,
});

/** A tenant is known once it has a tier or has asked for something. */
function tenantRecord(database: Database, tenantId: TenantId, day: string): Promise<TenantRecord | null> {
  return database.read(tenantId, async (db) => {
    const tenant = await db
      .selectFrom('tenants')
      .select('tier')
      .where('tenant_id', '=', tenantId)
      .executeTakeFirst();
    const usage = await db
      .selectFrom('daily_usage')
      .select(['day', 'used'])
      .where('tenant_id', '=', tenantId)
      .orderBy((order) => order.case().when('day', '=', day).then(0).else(1).end())
      .limit(1)
      .executeTakeFirst();
    if (!tenant && !usage) return null;
    const tier = tenant?.tier ? tierSchema.parse(tenant.tier) : undefined;
    return { tenantId, tier, day, used: usage?.day === day ? usage.used : 0 };
  });
}
