/** The table of limits in PostgreSQL: leases are asked for in one statement, which is a transaction by itself. */
import { sql } from 'kysely';
import { z } from 'zod';
import type { LeaseAnswer } from '../../domain/leases.ts';
import type { LimitTable } from '../../ports/limits.ts';
import type { Database } from '../database.ts';
import { unavailable } from '../failure.ts';
import type { Fence } from './fence.ts';

const answersSchema = z.array(
  z.object({
    place: z.number(),
    given: z.number().int().nonnegative(),
    retry_ms: z.number().nullable(),
    share: z.number().nullable(),
  }),
);

const NONE: LeaseAnswer = { given: 0, retryAfterMs: null, share: null };

/** `statement` as of the database. */
export const createPostgresLimits = (
  { statement }: Pick<Required<Database>, 'statement'>,
  fence: Fence,
): LimitTable => ({
  async lease(questions) {
    const identity = fence.identity();
    if (!identity) throw unavailable('The node has not joined the others yet.');
    const asked = questions.map(({ tenantId, perMs, ...question }) => ({
      ...{ tenant_id: tenantId, per_ms: perMs },
      ...question,
    }));
    const rows = await statement((db) =>
      sql`select * from nooble_lease(${identity.boot}, ${identity.nonce}::uuid, ${JSON.stringify(asked)}::json)`
        .execute(db)
        .then((result) => result.rows),
    ).catch((error: unknown) => {
      fence.heed(error);
      throw error;
    });
    const answers = new Map(
      answersSchema
        .parse(rows)
        .map(({ place, given, retry_ms, share }) => [place, { given, retryAfterMs: retry_ms, share }]),
    );
    return questions.map((_, index) => answers.get(index + 1) ?? NONE);
  },
});
