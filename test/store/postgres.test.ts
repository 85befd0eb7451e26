/** PostgreSQL keeps the contracts of all stores. */
import { after, before } from 'node:test';
import { openStores, type Stores } from '../../src/store/open.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { quiet } from '../support/quiet.ts';
import { agentContract } from './agent-contract.ts';
import { archiveContract } from './archive-contract.ts';
import { storeContract } from './contract.ts';
import { extremeContract } from './extreme-contract.ts';
import { alone } from './records.ts';
import { templateContract } from './template-contract.ts';
import { webhookContract } from './webhook-contract.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const open = async (): Promise<Stores> => openStores({ url: await server.database(), log: quiet });

storeContract('postgres', () => alone(open));
extremeContract('postgres', () => alone(open));
agentContract('postgres', open);
templateContract('postgres', open);
webhookContract('postgres', open);
archiveContract('postgres', open);
