/** SQLite keeps the contracts of all stores, in a file and in memory. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openStores, type Stores } from '../../src/store/open.ts';
import { quiet } from '../support/quiet.ts';
import { agentContract } from './agent-contract.ts';
import { archiveContract } from './archive-contract.ts';
import { storeContract } from './contract.ts';
import { extremeContract } from './extreme-contract.ts';
import { alone } from './records.ts';
import { templateContract } from './template-contract.ts';
import { webhookContract } from './webhook-contract.ts';

const inMemory = (): Promise<Stores> => openStores({ url: 'sqlite::memory:', log: quiet });

async function inFile(): Promise<Stores> {
  const folder = await mkdtemp(join(tmpdir(), 'nooble-sqlite-'));
  const stores = await openStores({ url: `sqlite:${join(folder, 'deep', 'nooble.db')}`, log: quiet });
  const close = async (): Promise<void> => {
    await stores.close();
    await rm(folder, { recursive: true, force: true });
  };
  return { ...stores, close };
}

for (const [name, open] of [
  ['sqlite in memory', inMemory],
  ['sqlite in a file', inFile],
] as const) {
  storeContract(name, () => alone(open));
  extremeContract(name, () => alone(open));
  agentContract(name, open);
  templateContract(name, open);
  webhookContract(name, open);
  archiveContract(name, open);
}
