/** `nooble export` and `nooble import` over real databases. */

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { type TestContext, test } from 'node:test';
import { type AuditEntry, agentSchema } from '../../src/domain/agent-record.ts';
import { DEFAULT_AGENT_ID, sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import type { TurnRecord } from '../../src/domain/turn.ts';
import type { Stores } from '../../src/store/open.ts';
import { leakFree } from '../support/leaks.ts';
import { openShell } from './shell.ts';

const tenant = tenantIdSchema.parse;
const AT = Date.parse('2026-01-02T03:04:05.006Z');

/** What text may hold: line ends of every kind, NUL, half a character, emoji. */
const WILD = 'a\nb\r\nc\u2028d\u2029e\u0000f\ud800g 🙂 "quoted" \\';

async function fill(stores: Stores, name: string): Promise<void> {
  const tenantId = tenant(name);
  for (const version of [1, 2, 3]) {
    const agent = agentSchema.parse({
      id: `agent-${name}`,
      tenant_id: name,
      name: 'Bot',
      slug: 'bot',
      description: `${WILD} ${version}`,
      type: 'conversational',
      provider: 'offline',
      model: 'offline-echo',
      temperature: 0.7,
      max_tokens: null,
      system_prompt: '',
      tools: [],
      collections: [],
      max_iterations: null,
      max_history_messages: null,
      is_active: true,
      minimum_tier: 'free',
      tags: [],
      template_id: null,
      version,
      created_at: new Date(AT).toISOString(),
      updated_at: new Date(AT + version).toISOString(),
      deleted_at: null,
    });
    const audit: AuditEntry = {
      agent_id: agent.id,
      version,
      action: version === 1 ? 'created' : 'updated',
      actor: 'ada',
      source: 'api',
      at: agent.updated_at,
      changes: [],
    };
    assert.equal(
      await stores.agents.save(tenantId, { agent, audit, replaces: version - 1, maxAgents: null }),
      'saved',
    );
  }
  for (let n = 0; n < 250; n += 1) {
    const turn: TurnRecord = {
      taskId: taskIdSchema.parse(`task-${n}`),
      tenantId,
      sessionId: sessionIdSchema.parse(n < 220 ? 'long' : `s${n}`),
      agentId: DEFAULT_AGENT_ID,
      agentVersion: 1,
      status: 'completed',
      createdAtMs: AT + n,
      finishedAtMs: AT + n + 1,
      content: `${WILD} ${n}`,
    };
    const messages = [
      { role: 'user', content: `${WILD}?`, taskId: turn.taskId, atMs: AT + n },
      { role: 'assistant', content: `${WILD} ${n}`, taskId: turn.taskId, atMs: AT + n + 1 },
    ] as const;
    await stores.archive.restore(tenantId, [{ turn, messages }]);
  }
}

async function everything(stores: Stores, name: string) {
  const tenantId = tenant(name);
  const sessions = await stores.archive.sessions(tenantId, undefined, 1_000);
  const turns = [];
  for (const session of sessions) {
    const found = await stores.archive.turns(tenantId, session, undefined, 1_000);
    turns.push(...found.map((one) => ({ ...one, turn: { ...one.turn, tenantId: '' } })));
  }
  const { items: versions } = await stores.agents.versions(
    tenantId,
    agentSchema.shape.id.parse('agent-acme'),
    {
      page: 1,
      pageSize: 20,
    },
  );
  return { sessions, turns, versions: versions.map((version) => ({ ...version, tenant_id: '' })) };
}

async function opened<T>(stores: Promise<Stores>, work: (stores: Stores) => Promise<T>): Promise<T> {
  const open = await stores;
  try {
    return await work(open);
  } finally {
    await open.close();
  }
}

async function exported(t: TestContext) {
  const from = await openShell(t);
  await opened(from.stores(), async (stores) => {
    await fill(stores, 'acme');
    await fill(stores, 'globex');
  });
  const file = from.path('acme.ndjson');
  const run = await from.run(`export --tenant acme -o ${file}`);
  assert.equal(run.code, 0, run.err);
  assert.match(run.err, /^exported 1 agents and 250 turns of acme to /);
  return { from, file };
}

test('what is exported comes back whole, elsewhere and for another tenant, once', async (t) => {
  leakFree(t);
  const { from, file } = await exported(t);
  const before = await opened(from.stores(), (stores) => everything(stores, 'acme'));
  assert.equal(before.turns.length, 250);

  const to = await openShell(t);
  const run = await to.run(`import -f ${file}`);
  assert.equal(run.code, 0, run.err);
  assert.match(
    run.err,
    /imported into acme: 1 agents and 250 turns; 0 agents and 0 turns were there already/,
  );
  assert.deepEqual(await opened(to.stores(), (stores) => everything(stores, 'acme')), before);

  const again = await to.run(`import -f ${file}`);
  assert.match(again.err, /0 agents and 0 turns; 1 agents and 250 turns were there already/);
  const other = await to.run(`import -f ${file} --tenant initech`);
  assert.equal(other.code, 0, other.err);
  assert.deepEqual(await opened(to.stores(), (stores) => everything(stores, 'initech')), before);
});

test('an export holds its tenant and nobody else, one line a thing', async (t) => {
  leakFree(t);
  const { from, file } = await exported(t);
  const text = await readFile(file, 'utf8');
  assert.ok(!text.includes('globex'));
  assert.equal(text.trimEnd().split(/\r\n|[\n\r\u2028\u2029]/).length, 1 + 1 + 250 + 1);
  const out = await from.run('export --tenant acme');
  assert.equal(out.out.split('\n').length, 253);
  assert.deepEqual(
    (await readdir(from.folder)).filter((name) => name.endsWith('.part')),
    [],
  );
  const empty = await from.run('export --tenant nobody');
  assert.equal(empty.out.split('\n').length, 2);
});

test('a file that is not whole, or something else, is refused and nothing is written', async (t) => {
  leakFree(t);
  const { file } = await exported(t);
  const text = await readFile(file, 'utf8');
  const lines = text.trimEnd().split('\n');
  const shell = await openShell(t);
  const broken: [string, RegExp][] = [
    [lines.slice(0, -1).join('\n'), /not whole/],
    [[...lines.slice(0, 100), ...lines.slice(150)].join('\n'), /not whole/],
    [text.slice(0, -300), /line \d+: not as/],
    [lines.slice(1).join('\n'), /no export/],
    ['', /no export/],
    ['{}', /line 1/],
    ['not json', /line 1/],
    [text.replace('"format":1', '"format":2'), /line 1/],
    [text.replace('"version":2', '"version":9'), /line 2: not as/],
    [text.replace('"version":2', '"version":1'), /line 2: not as/],
    [text.replace('"id":"agent-acme"', '"id":"another"'), /line 2: not as/],
  ];
  for (const [content, expected] of broken) {
    const run = await shell.run(`import -f ${await shell.write('x.ndjson', content)}`);
    assert.equal(run.code, 2, run.err);
    assert.match(run.err, expected);
  }
  assert.equal((await shell.run(`import -f ${shell.path('absent')}`)).code, 2);
  const after = await opened(shell.stores(), (stores) => everything(stores, 'acme'));
  assert.deepEqual(after, { sessions: [], turns: [], versions: [] });
});

const agentId = agentSchema.shape.id.parse('agent-acme');

/** The tenant's agent deleted, and a younger one that lives under its slug. */
async function replaceAgent(stores: Stores): Promise<void> {
  const { agents } = stores;
  const acme = tenant('acme');
  const old = await agents.get(acme, agentId);
  assert.ok(old);
  const gone = { ...old, version: 4, deleted_at: new Date(AT + 9).toISOString() };
  const fresh = { ...old, id: agentSchema.shape.id.parse('a-younger-one'), version: 1 };
  for (const agent of [gone, fresh]) {
    const { id, version, updated_at: at } = agent;
    const who = { actor: 'ada', source: 'api', action: 'updated' } as const;
    const audit: AuditEntry = { agent_id: id, version, at, changes: [], ...who };
    assert.equal(await agents.save(acme, { agent, audit, replaces: version - 1, maxAgents: null }), 'saved');
  }
}

test('deleted agents come back as deleted, beside the live one that has their slug', async (t) => {
  leakFree(t);
  const from = await openShell(t);
  await opened(from.stores(), async (stores) => {
    await fill(stores, 'acme');
    await replaceAgent(stores);
  });
  const file = from.path('acme.ndjson');
  const run = await from.run(`export --tenant acme -o ${file}`);
  assert.match(run.err, /^exported 2 agents \(1 of them deleted\) and 250 turns of acme to /);
  const to = await openShell(t);
  const imported = await to.run(`import -f ${file}`);
  assert.match(imported.err, /imported into acme: 2 agents \(1 of them deleted\) and 250 turns; 0 agents/);

  await opened(to.stores(), async ({ agents }) => {
    const list = await agents.list(tenant('acme'), { page: 1, pageSize: 9 });
    assert.deepEqual(
      list.items.map(({ id, slug }) => [id, slug]),
      [['a-younger-one', 'bot']],
    );
    const deleted = await agents.get(tenant('acme'), agentId);
    assert.deepEqual([deleted?.version, deleted?.deleted_at], [4, new Date(AT + 9).toISOString()]);
    const { items } = await agents.history(tenant('acme'), agentId, { page: 1, pageSize: 9 });
    assert.deepEqual(
      items.map(({ action, source }) => `${source} ${action}`),
      ['import deleted', 'import updated', 'import updated', 'import created'],
    );
  });
  assert.match((await to.run(`import -f ${file}`)).err, /0 agents and 0 turns; 2 agents and 250 turns/);
});

test('an agent whose slug is taken is told, and the rest comes in', async (t) => {
  leakFree(t);
  const { file } = await exported(t);
  const to = await openShell(t);
  await opened(to.stores(), (stores) => fill(stores, 'initech'));
  const run = await to.run(`import -f ${file} --tenant initech`);
  assert.match(run.err, /agent bot was left out: another agent has its slug/);
  assert.match(run.err, /imported into initech: 0 agents/);
});

test('a database that can not be opened is exit code 1 and says which', async (t) => {
  leakFree(t);
  const shell = await openShell(t);
  const file = await shell.write('file', '');
  const run = await shell.run('export --tenant acme', { DATABASE_URL: `sqlite:${file}/x.db` });
  assert.equal(run.code, 1);
  assert.match(run.err, /^nooble: the database sqlite:.* can not be opened/);
  assert.equal((await shell.run('export --tenant acme', { PORT: 'x' })).code, 2);
});
