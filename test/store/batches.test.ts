/** Batches and callbacks over both databases. */
import { after, before, test } from 'node:test';
import { openStores } from '../../src/store/open.ts';
import { leakFree } from '../support/leaks.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { quiet } from '../support/quiet.ts';
import { batchContract } from './batch-contract.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const places = {
  sqlite: async () => 'sqlite::memory:',
  postgres: () => server.database(),
};

for (const [name, place] of Object.entries(places))
  batchContract((sentence, body) => {
    test(`${name}: ${sentence}`, async (t) => {
      leakFree(t);
      const stores = await openStores({ url: await place(), log: quiet });
      try {
        await body(stores);
      } finally {
        await stores.close();
      }
    });
  });
