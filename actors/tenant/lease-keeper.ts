/** A node's way to the table of limits: gathers the questions of a loop turn into one, and brings each its answer. */
import type { TenantId } from '../../src/domain/ids.ts';
import type { LeaseAnswer, LeaseQuestion } from '../../src/domain/leases.ts';
import type { TierTable } from '../../src/domain/tiers.ts';
import type { LimitKind, LimitQuestion, LimitTable } from '../../src/ports/limits.ts';
import type { Log } from '../../src/ports/telemetry.ts';

export interface LeaseKeeper {
  /** Resolves to null where the database does not say. Never rejects, and never answers in the same tick. */
  ask(tenantId: TenantId, kind: LimitKind, question: LeaseQuestion): Promise<LeaseAnswer | null>;
}

/** Limits that hold over all nodes. `tiers`: as they are over all nodes together. */
export interface SharedLimits {
  readonly keeper: LeaseKeeper;
  readonly tiers: TierTable;
}

/** Questions of one statement, and statements under way: beyond, questions wait and go together. */
const MAX_QUESTIONS = 500;
const MAX_STATEMENTS = 3;

interface PendingQuestion {
  readonly question: LimitQuestion;
  readonly resolve: (answer: LeaseAnswer | null) => void;
}

export function createLeaseKeeper(table: LimitTable, log: Log): LeaseKeeper {
  let pending: PendingQuestion[] = [];
  let asked = 0;
  let underWay = 0;
  let scheduled = false;
  let failing = false;

  async function send(batch: readonly PendingQuestion[]): Promise<void> {
    underWay += 1;
    const answers = await table.lease(batch.map(({ question }) => question)).catch((error: unknown) => {
      if (!failing) log.warn({ err: error }, 'limits can not be asked for');
      failing = true;
      return undefined;
    });
    if (answers && failing) log.info({}, 'limits are answered again');
    if (answers) failing = false;
    underWay -= 1;
    for (const [index, { resolve }] of batch.entries()) resolve(answers?.[index] ?? null);
    soon();
  }

  function soon(): void {
    if (scheduled || pending.length === 0 || underWay >= MAX_STATEMENTS) return;
    scheduled = true;
    setImmediate(() => {
      scheduled = false;
      const batch = pending.slice(0, MAX_QUESTIONS);
      pending = pending.slice(batch.length);
      void send(batch);
      soon();
    });
  }

  return {
    ask(tenantId, kind, question) {
      asked += 1;
      const numbered = { ...question, tenantId, kind, asked };
      return new Promise((resolve) => {
        pending.push({ question: numbered, resolve });
        soon();
      });
    },
  };
}
