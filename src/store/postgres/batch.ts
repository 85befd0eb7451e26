/** Carries out a batch of writes in one PostgreSQL transaction and, since all is sent at once, one round trip. */
import type { Pool, PoolClient } from 'pg';
import { type EncodedWrite, FENCED, OVER } from '../encode.ts';
import { classified, isRefused, isUnavailable, unsettled } from '../failure.ts';
import type { Fence } from './fence.ts';
import { type PlanStep, planBatch, turnKey } from './plan.ts';
import { SQL } from './statements.ts';

/** Stores all writes or none. The pool's connections must pipeline. Outcomes as in encode.ts. */
export async function runBatch(
  pool: Pick<Pool, 'connect'>,
  fence: Fence,
  writes: readonly EncodedWrite[],
): Promise<readonly number[]> {
  const steps = planBatch(writes);
  const client = await pool.connect().catch((error: unknown) => {
    throw classified(error);
  });
  let failure: unknown;
  try {
    const outcomes = await transaction(client, fence, writes, steps);
    fence.passed(client);
    return outcomes;
  } catch (error) {
    failure = isRefused(error) ? classified(error) : unsettled(classified(error));
    fence.heed(failure);
    throw failure;
  } finally {
    client.release(isUnavailable(failure));
  }
}

/** Everything is sent before the first answer is read; after a failed statement PostgreSQL skips the rest. */
async function transaction(
  client: PoolClient,
  fence: Fence,
  writes: readonly EncodedWrite[],
  steps: readonly PlanStep[],
): Promise<readonly number[]> {
  const { name, text, values } = fence.opening(client);
  const begun = [client.query('begin'), client.query({ name, text, values: [...values] })];
  const answers = steps.map((step) => client.query<Answer>(queryOf(step)));
  const committed = client.query('commit');
  const failed = (await Promise.allSettled([...begun, ...answers, committed])).find(
    (result) => result.status === 'rejected',
  );
  if (failed) throw failed.reason;
  if ((await committed).command !== 'COMMIT') throw new Error('PostgreSQL rolled a transaction back.');

  const outcomes = writes.map(() => 1);
  for (const [index, step] of steps.entries()) {
    const answer = await answers[index];
    if (answer) note(outcomes, step, answer);
  }
  return outcomes;
}

/** What a statement answers with: keys, numbers of rows (from 1), or how many sessions were looked at or deleted. */
interface Answer {
  readonly key?: string | null;
  readonly ord?: number | null;
  readonly fenced?: boolean;
  /** Whether it was refused since its day is used up. */
  readonly over?: boolean;
  readonly looked?: number;
}

/** Notes those outcomes of a statement that are not 1. */
function note(
  outcomes: number[],
  { kind, rows, places }: PlanStep,
  answer: { readonly rows: readonly Answer[]; readonly rowCount: number | null },
): void {
  const set = (index: number, outcome: number): void => {
    const place = places[index];
    if (place !== undefined) outcomes[place] = outcome;
  };
  switch (kind) {
    case 'accepted':
    case 'acceptedWithin': {
      // Of several with one key it was the first that was stored.
      const stored = new Set(answer.rows.filter(({ over }) => !over).map(({ key }) => key));
      const over = new Set(answer.rows.filter((row) => row.over).map(({ key }) => key));
      for (const [index, row] of rows.entries()) {
        const key = turnKey(row);
        set(index, stored.delete(key) ? 1 : over.has(key) ? OVER : 0);
      }
      for (const { ord } of answer.rows) if (ord) set(ord - 1, FENCED);
      break;
    }
    case 'resumed':
      for (const { ord } of answer.rows) if (ord) set(ord - 1, 1);
      break;
    case 'effects':
      for (const { ord } of answer.rows) if (ord) set(ord - 1, FENCED);
      break;
    case 'ended':
      for (const { ord, fenced } of answer.rows) if (ord) set(ord - 1, fenced ? FENCED : 0);
      break;
    case 'deleted':
      if (!answer.rows[0]?.looked) set(0, FENCED);
      break;
    case 'expired':
      set(0, answer.rows[0]?.looked ?? 0);
      break;
    case 'forgotten':
      set(0, answer.rowCount ?? 0);
  }
}

/** Every statement has a name of its own, by which each connection prepares it once. */
function queryOf({ kind, rows, outgoing }: PlanStep) {
  const values = kind === 'probe' ? [] : [JSON.stringify(rows)];
  if (outgoing.length === 0) return { name: kind, text: SQL[kind], values };
  const name = 'endedWithOutgoing';
  return { name, text: SQL[name], values: [...values, JSON.stringify(outgoing)] };
}
