/** Jobs that run once a day over all nodes of a database. */
import { sql } from 'kysely';
import type { JobRuns } from '../ports/cluster.ts';
import type { Database } from './database.ts';

const RUNS_FOR = '30 days';

/** PostgreSQL only; `database` stays the caller's to close. */
export function createJobRuns(database: Database): JobRuns {
  return {
    begin: (job) =>
      database.write('node', async (db) => {
        const { rows } = await sql`insert into job_runs (job, day, boot)
          values (${job}, (now() at time zone 'utc')::date, ${database.boot?.() ?? null})
          on conflict (job, day) do nothing returning job`.execute(db);
        await sql`delete from job_runs where at < now() - ${RUNS_FOR}::interval`.execute(db);
        return rows.length > 0;
      }),
  };
}
