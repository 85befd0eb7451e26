/** Lists whose pages are read while others make, change and delete: nothing comes twice, nothing that stayed is left out. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { OFFLINE, startTestNode, type TestNode } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

interface Item {
  readonly id: string;
  readonly name: string;
  readonly version: number;
}

/** Every item of a list by its pages; `between` runs after each page, with what has been seen. */
async function walk(
  { ask }: TestNode,
  path: string,
  between: (seen: readonly Item[]) => Promise<unknown> = async () => undefined,
): Promise<readonly Item[]> {
  const seen: Item[] = [];
  for (let next = ''; ; ) {
    const joint = path.includes('?') ? '&' : '?';
    const { status, body, text } = await ask(`${path}${joint}page_size=2${next}`);
    assert.equal(status, 200, text);
    seen.push(...body.items);
    if (body.next === undefined) return seen;
    next = `&after=${encodeURIComponent(body.next)}`;
    await between(seen);
  }
}

const namesOf = (items: readonly Item[]): readonly string[] => items.map(({ name }) => name);
const idsOf = (items: readonly Item[]): readonly string[] => items.map(({ id }) => id);
const NAMES = ['A', 'B', 'C', 'D', 'E', 'F'];

async function make({ ask }: TestNode, path: string, bodies: readonly object[]): Promise<readonly Item[]> {
  const made: Item[] = [];
  for (const body of bodies) {
    const answer = await ask(path, { body });
    assert.equal(answer.status, 201, answer.text);
    made.push(answer.body);
  }
  return made;
}

async function agents(node: TestNode) {
  const made = await make(
    node,
    '/api/agents',
    NAMES.map((name) => ({ name, tags: ['one'] })),
  );
  assert.deepEqual(namesOf(await walk(node, '/api/agents?tag=one')), NAMES);
  const doomed = [...made.slice(0, 2), made[3]];
  const seen = await walk(node, '/api/agents', async () => {
    // The mark of the page itself goes, one before it, and one behind it; another is made and one changed.
    for (const one of doomed.splice(0, 3)) await node.ask(`/api/agents/${one?.id}`, { method: 'DELETE' });
    await node.ask('/api/agents', { body: { name: `New ${Math.random()}` } });
    await node.ask(`/api/agents/${made[5]?.id}`, { method: 'PATCH', body: { description: 'changed' } });
  });
  assert.equal(new Set(idsOf(seen)).size, seen.length, 'no agent twice');
  for (const name of ['C', 'E', 'F']) assert.ok(namesOf(seen).includes(name), name);
  assert.ok(!namesOf(seen).includes('D'));
}

async function versions(node: TestNode) {
  const [agent] = await make(node, '/api/agents', [{ name: 'Versioned' }]);
  const path = `/api/agents/${agent?.id}`;
  let count = 1;
  const change = async (): Promise<void> => {
    count += 1;
    await node.ask(path, { method: 'PATCH', body: { description: `change ${count}` } });
  };
  while (count < 6) await change();
  for (const list of ['versions', 'history']) {
    const newest = count;
    const seen = await walk(node, `${path}/${list}`, change);
    const numbers = seen.map(({ version }) => version);
    assert.deepEqual(
      numbers,
      Array.from({ length: newest }, (_, index) => newest - index),
      list,
    );
  }
}

async function templates(node: TestNode) {
  const made = await make(
    node,
    '/api/templates',
    NAMES.map((name) => ({ name, slug: `t-${name.toLowerCase()}`, agent: { system_prompt: 'Hi.' } })),
  );
  const builtIn = (await node.ask('/api/templates')).body.total - made.length;
  const seen = await walk(node, '/api/templates', async (so) => {
    const last = so.at(-1);
    if (last && NAMES.includes(last.name)) await node.ask(`/api/templates/${last.id}`, { method: 'DELETE' });
  });
  assert.equal(seen.length, builtIn + made.length);
  assert.equal(new Set(idsOf(seen)).size, seen.length);
}

async function webhooks(node: TestNode) {
  const made = await make(
    node,
    '/api/webhooks',
    NAMES.map((name) => ({ url: `https://example.com/${name}` })),
  );
  const seen = await walk(node, '/api/webhooks', (so) =>
    node.ask(`/api/webhooks/${so[0]?.id}`, { method: 'DELETE' }),
  );
  assert.deepEqual(idsOf(seen), idsOf(made));
}

async function wrong({ ask }: TestNode) {
  for (const place of ['x', '-1', '1.', '1.a b', '9'.repeat(16), '1.%00', `1.${'a'.repeat(129)}`]) {
    const { status, body } = await ask(`/api/agents?after=${place}`);
    assert.deepEqual([status, body.error.code], [400, 'INVALID_REQUEST'], place);
    assert.match(body.error.message, /after/);
  }
  const versionless = await ask('/api/agents/default/versions?after=999999999999999');
  assert.notEqual(versionless.status, 500);
  const beyond = await ask('/api/agents?after=999999999999999.zz');
  assert.deepEqual([beyond.status, beyond.body.items, beyond.body.next], [200, [], undefined]);
}

for (const kind of ['SQLite', 'PostgreSQL'])
  test(`pages of every list stay while others write (${kind})`, async (t: TestContext) => {
    const database = kind === 'SQLite' ? {} : { DATABASE_URL: await server.database() };
    const node = await startTestNode(t, { env: { ...OFFLINE, ...database, DEFAULT_TIER: 'enterprise' } });
    await agents(node);
    await versions(node);
    await templates(node);
    await webhooks(node);
    await wrong(node);
  });
