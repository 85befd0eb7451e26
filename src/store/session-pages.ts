/** Reads pages of sessions: whole turns, newest last. The newest pages of sessions that come to life together are one read. */
import { type Kysely, type Selectable, sql } from 'kysely';
import type { SessionId, TenantId } from '../domain/ids.ts';
import type { MessagePage, PageRequest } from '../ports/store.ts';
import type { Database } from './database.ts';
import { MESSAGE_COLUMNS, type MessageRow, messagesOf, turnOf } from './encode.ts';
import { FLAG, type Schema, type TurnTable } from './schema.ts';

type SessionPages = (
  tenantId: TenantId,
  sessionId: SessionId,
  page: PageRequest,
) => Promise<MessagePage | null>;

/** One whose newest page is asked for. */
interface Asked {
  readonly tenantId: TenantId;
  readonly sessionId: SessionId;
  readonly page: PageRequest;
  readonly resolve: (page: Promise<MessagePage | null>) => void;
}

/** Sessions that one read takes: more take no less time each. */
const MAX_AT_ONCE = 64;

/**
 * With PostgreSQL, whose every read is a way to the server and back, newest pages that are asked for in one turn of the
 * loop are read together: 64 take about as long as four. One alone is read in its tenant's scope, as all the others.
 */
export function createSessionPages(database: Database): SessionPages {
  const one: SessionPages = (tenantId, sessionId, page) => sessionPage(database, tenantId, sessionId, page);
  if (database.kind !== 'postgres') return one;
  let asked: Asked[] = [];

  function readAsked(): void {
    const all = asked;
    asked = [];
    for (let from = 0; from < all.length; from += MAX_AT_ONCE) {
      const some = all.slice(from, from + MAX_AT_ONCE);
      const found = some.length > 1 ? newestPages(database, some) : undefined;
      for (const [index, each] of some.entries()) {
        const alone = () => one(each.tenantId, each.sessionId, each.page);
        // What does not fit into the one read is read again; so is nothing that failed, since that would flood who is slow.
        each.resolve(
          found
            ? found.then((pages) => {
                const page = pages[index];
                return page === undefined ? alone() : page;
              })
            : alone(),
        );
      }
    }
  }

  return (tenantId, sessionId, page) => {
    if (page.before !== undefined) return one(tenantId, sessionId, page);
    return new Promise((resolve) => {
      if (asked.length === 0) setImmediate(readAsked);
      asked.push({ tenantId, sessionId, page, resolve });
    });
  };
}

/** Turns mostly hold two messages; where many lack an answer a second look takes what may be missing. */
const fewOf = ({ limit }: PageRequest): number => Math.floor(limit / 2) + 2;

/** Undefined where the page has to be read alone, since it may be longer. */
function newestPages(
  database: Database,
  asked: readonly Asked[],
): Promise<readonly (MessagePage | null | undefined)[]> {
  const keys = sql`unnest(${asked.map(({ tenantId }) => tenantId)}::text[],
    ${asked.map(({ sessionId }) => sessionId)}::text[], ${asked.map(({ page }) => fewOf(page))}::int[])
    with ordinality as s (tenant_id, session_id, few, ord)`;
  const ofSession = sql`t.tenant_id = s.tenant_id and t.session_id = s.session_id`;
  const columns = sql.join(MESSAGE_COLUMNS.map((name) => sql.ref(`t.${name}`)));
  return database.read('node', async (db) => {
    const [newest, untold, known] = await Promise.all([
      sql<MessageRow & Ord>`select s.ord, n.* from ${keys} cross join lateral (
        select t.seq, ${columns} from turns t where ${ofSession} and t.flags & ${sql.lit(FLAG.unrun)} = 0
        order by t.seq desc limit s.few) n order by s.ord, n.seq desc`.execute(db),
      sql<Selectable<TurnTable> & Ord>`select s.ord, n.* from ${keys} cross join lateral (
        select * from turns t where ${ofSession} and t.untold = 1) n order by s.ord, n.seq`.execute(db),
      sql<Ord>`select s.ord from ${keys} where exists (select from turns t where ${ofSession})`.execute(db),
    ]);
    const rowsOf = byOrd(newest.rows);
    const leftOf = byOrd(untold.rows);
    const exist = new Set(known.rows.map(({ ord }) => ord));
    return asked.map(({ page }, index) => {
      const rows = rowsOf.get(index + 1) ?? [];
      if (rows.length === fewOf(page) && countOf(rows) <= page.limit) return undefined;
      return exist.has(index + 1) ? withLeft(rows, leftOf.get(index + 1) ?? [], page) : null;
    });
  });
}

/** The number, from 1, of the session that a row is of. */
interface Ord {
  readonly ord: number;
}

function byOrd<T extends Ord>(rows: readonly T[]): ReadonlyMap<number, readonly T[]> {
  const found = new Map<number, T[]>();
  for (const row of rows) {
    const others = found.get(row.ord);
    if (others) others.push(row);
    else found.set(row.ord, [row]);
  }
  return found;
}

/** A page holds whole turns, and at least one: `before` names a turn, so a part of one could not be asked for. */
function sessionPage(
  database: Database,
  tenantId: TenantId,
  sessionId: SessionId,
  page: PageRequest,
): Promise<MessagePage | null> {
  return database.read(tenantId, async (db) => {
    const newest = (count: number): Promise<readonly MessageRow[]> =>
      db
        .selectFrom('turns')
        .select(MESSAGE_COLUMNS)
        .where('tenant_id', '=', tenantId)
        .where('session_id', '=', sessionId)
        .where(sql<boolean>`flags & ${sql.lit(FLAG.unrun)} = 0`)
        .$if(page.before !== undefined, (query) =>
          query.where('seq', '<', (nested) =>
            nested
              .selectFrom('turns as mark')
              .select('mark.seq')
              .where('mark.tenant_id', '=', tenantId)
              .where('mark.task_id', '=', page.before ?? '')
              .where('mark.session_id', '=', sessionId),
          ),
        )
        .orderBy('seq', 'desc')
        .limit(count)
        .execute();

    const unnotified = (): Promise<readonly Selectable<TurnTable>[]> =>
      db
        .selectFrom('turns')
        .selectAll()
        .where('tenant_id', '=', tenantId)
        .where('session_id', '=', sessionId)
        .where('untold', '=', 1)
        .orderBy('seq')
        .execute();

    const few = fewOf(page);
    const [found, left] = await Promise.all([newest(few), unnotified()]);
    const rows = found.length === few && countOf(found) <= page.limit ? await newest(page.limit + 1) : found;
    if (rows.length === 0 && page.before === undefined) return null;
    if (rows.length === 0 && !(await exists(db, tenantId, sessionId))) return null;
    return withLeft(rows, left, page);
  });
}

function withLeft(
  rows: readonly MessageRow[],
  left: readonly Selectable<TurnTable>[],
  page: PageRequest,
): MessagePage {
  const interrupted = left.map(turnOf);
  return { ...pageOf(rows, page.limit), ...(interrupted.length > 0 ? { interrupted } : {}) };
}

const countOf = (rows: readonly MessageRow[]): number =>
  rows.reduce((count, row) => count + (row.answer === null ? 1 : 2), 0);

/** `rows` come newest first. */
function pageOf(rows: readonly MessageRow[], limit: number): MessagePage {
  const pages: MessagePage['messages'][] = [];
  let count = 0;
  for (const row of rows) {
    const both = messagesOf(row);
    if (count > 0 && count + both.length > limit) break;
    pages.push(both);
    count += both.length;
  }
  return { messages: pages.reverse().flat(), hasMore: pages.length < rows.length };
}

async function exists(db: Kysely<Schema>, tenantId: TenantId, sessionId: SessionId): Promise<boolean> {
  const row = await db
    .selectFrom('turns')
    .select('task_id')
    .where('tenant_id', '=', tenantId)
    .where('session_id', '=', sessionId)
    .limit(1)
    .executeTakeFirst();
  return row !== undefined;
}
