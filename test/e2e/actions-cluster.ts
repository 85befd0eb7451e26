/** Nodes in processes of their own on one database and one Redis, their model a stub: for tests in which nodes die. */
import type { TestContext } from 'node:test';
import { type ActionClient, actionClient } from '../support/action-client.ts';
import { type ChildNode, type Env, modelledBy, spawnNode } from '../support/node.ts';
import { type StubModel, startStubModel } from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';
import { until } from '../support/until.ts';

/** A dead node's lease runs out, and its actions go back: twice the 6 s that a lease has. */
export const TAKEOVER_MS = 20_000;

export interface ActionCluster {
  readonly client: ActionClient;
  readonly stub: StubModel;
  /** Starts a node; it is killed after the test at the latest. */
  node(more?: Env): Promise<ChildNode>;
}

export async function actionCluster(t: TestContext): Promise<ActionCluster> {
  const client = await actionClient(t);
  const stub = await startStubModel();
  t.after(() => stub.close());
  const { database } = temporary(t);
  const env = { DATABASE_URL: database, REDIS_URL: client.redis.url, ...modelledBy(stub) };
  return { client, stub, node: (more = {}) => spawnNode(t, { ...env, ...more }) };
}

/** What nodes hold in Redis beside the queues: what they took, that they live, where they are answered. */
export const heldKeys = ({ redis }: ActionClient): Promise<readonly string[]> =>
  redis.client.keys('nooble:*');

/** Resolves once no action waits on the queue and no node holds one. */
export const settled = (client: ActionClient, queue: string): Promise<void> =>
  until('all is settled', async () => {
    const taken = await client.redis.client.keys('nooble:taken:*');
    const held = await Promise.all(taken.map((key) => client.redis.client.hkeys(key)));
    const open = held.flat().filter((field) => !field.startsWith('hot:'));
    return open.length + (await client.redis.client.llen(queue)) === 0;
  });
