/** The stores of several nodes on one empty PostgreSQL database, and what a superuser sees of it. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import pg from 'pg';
import type { NodeTable, OwnerTable } from '../../src/ports/cluster.ts';
import { openStores, type Stores } from '../../src/store/open.ts';
import { leakFree } from '../support/leaks.ts';
import type { PostgresServer } from '../support/postgres.ts';
import { quiet } from '../support/quiet.ts';

export interface Member extends Stores {
  readonly nodes: NodeTable;
  readonly owners: OwnerTable;
  readonly boot: number;
}

/** All that it opens is closed after the test. */
export async function membersOn(t: TestContext, server: PostgresServer) {
  leakFree(t);
  const url = await server.database();
  const opened: { close(): Promise<void> }[] = [];
  t.after(async () => {
    for (const each of opened) await each.close();
  });
  const connect = async (): Promise<pg.Client> => {
    const name = new URL(url).pathname.slice(1);
    const client = new pg.Client({ connectionString: server.adminUrl.replace(/[^/]*$/, name) });
    await client.connect();
    opened.push({ close: () => client.end() });
    return client;
  };
  const admin = await connect();
  return {
    connect,
    rows: async (text: string) => (await admin.query(text)).rows,
    /** A node that has its boot. */
    async member(nodeId: string): Promise<Member> {
      const stores = await openStores({ url, log: quiet, nodeId });
      opened.push(stores);
      const { nodes, owners } = stores;
      assert.ok(nodes && owners);
      return { ...stores, nodes, owners, boot: await nodes.register({ nodeId, version: '1' }) };
    },
    /** One that takes the database for its own. */
    async lone(): Promise<Stores> {
      const stores = await openStores({ url, log: quiet });
      opened.push(stores);
      return stores;
    },
  };
}
