/** One page of a list in a database, by its number or behind the last item of another page. */
import { type SelectQueryBuilder, sql } from 'kysely';
import type { Page, PageOf } from '../ports/management.ts';
import type { Schema } from './schema.ts';

/** The columns that a list is ordered by. `id` tells apart what has the same `at`. */
interface Order {
  readonly at: 'created_at' | 'version' | 'entry';
  readonly id?: 'agent_id' | 'delivery_id';
  readonly newestFirst: boolean;
}

/** The bodies of a page of `found`. */
export async function pageOf<T extends keyof Schema>(
  found: SelectQueryBuilder<Schema, T, object>,
  { page, pageSize, after }: PageOf,
  order: Order,
): Promise<Page<string>> {
  const at = sql.ref<number>(order.at);
  const id = order.id === undefined ? sql<string>`''` : sql.ref<string>(order.id);
  const [past, direction] = order.newestFirst ? ([sql`<`, 'desc'] as const) : ([sql`>`, 'asc'] as const);
  const mark = sql`cast(${after?.at ?? 0} as bigint)`;
  const behind = sql<boolean>`(${at} ${past} ${mark} or (${at} = ${mark} and ${id} > ${after?.id ?? ''}))`;
  const rows = await found
    .select([sql<string>`body`.as('body'), at.as('mark_at'), id.as('mark_id')])
    .$if(after !== undefined, (query) => query.where(behind))
    .orderBy(at, direction)
    .$if(order.id !== undefined, (query) => query.orderBy(id))
    .limit(pageSize + 1)
    .offset(after ? 0 : (page - 1) * pageSize)
    .execute();
  const { total } = await found
    .select(({ fn }) => fn.countAll<number>().as('total'))
    .executeTakeFirstOrThrow();
  const shown = rows.slice(0, pageSize);
  const last = rows.length > pageSize ? shown.at(-1) : undefined;
  const items = shown.map(({ body }) => body);
  return last ? { items, total, next: { at: last.mark_at, id: last.mark_id } } : { items, total };
}

/** The page with its items read. */
export const pageWith = <T>({ items, ...page }: Page<string>, read: (body: string) => T): Page<T> => ({
  ...page,
  items: items.map(read),
});
