/** What every agent store must do, whatever is behind it. */
import assert from 'node:assert/strict';
import { type Agent, type AuditEntry, agentSchema } from '../../src/domain/agent-record.ts';
import { agentIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import type { AgentStore, ListQuery, SaveOutcome } from '../../src/ports/management.ts';
import { type Over, overEach } from './records.ts';

const acme = tenantIdSchema.parse('acme');
const umbrella = tenantIdSchema.parse('umbrella');
const id = (name: string) => agentIdSchema.parse(name);
const at = (second: number): string => new Date(1_700_000_000_000 + second * 1_000).toISOString();

export const agent = (name: string, more: Partial<Agent> = {}): Agent =>
  agentSchema.parse({
    id: name,
    tenant_id: acme,
    name,
    slug: name,
    description: '',
    type: 'conversational',
    provider: 'offline',
    model: 'offline-echo',
    temperature: 0.5,
    max_tokens: null,
    system_prompt: 'Be kind.',
    tools: ['calculator'],
    collections: [],
    max_iterations: null,
    max_history_messages: 7,
    is_active: true,
    minimum_tier: 'free',
    tags: [],
    template_id: null,
    version: 1,
    created_at: at(0),
    updated_at: at(more.version ?? 1),
    deleted_at: null,
    ...more,
  });

export const audit = (of: Agent, action: AuditEntry['action'] = 'updated'): AuditEntry => ({
  agent_id: of.id,
  version: of.version,
  action,
  actor: 'ann',
  source: 'api',
  at: of.updated_at,
  changes: [{ field: 'name', from: null, to: of.name }],
});

const save = (
  store: AgentStore,
  changed: Agent,
  maxAgents: number | null = null,
  replaces = changed.version - 1,
): Promise<SaveOutcome> =>
  store.save(changed.tenant_id, { agent: changed, audit: audit(changed), replaces, maxAgents });

const ids = async (store: AgentStore, query: Partial<ListQuery> = {}): Promise<readonly string[]> =>
  (await store.list(acme, { page: 1, pageSize: 20, ...query })).items.map((each) => each.id);

const FIRST = { page: 1, pageSize: 20 };

export interface OpenAgents {
  readonly agents: AgentStore;
  close(): Promise<void>;
}

/** Runs the contract over stores that `open` makes; each test opens its own and closes it. */
export function agentContract(name: string, open: () => Promise<OpenAgents>): void {
  const each = overEach(name, open);
  const over: Over<AgentStore> = (sentence, body) => each(sentence, ({ agents }) => body(agents));

  over('what nobody saved is not there', async (store) => {
    assert.equal(await store.get(acme, id('a1')), null);
    assert.deepEqual(await store.versions(acme, id('a1'), FIRST), { items: [], total: 0 });
    assert.deepEqual(await store.list(acme, { page: 1, pageSize: 20 }), { items: [], total: 0 });
    assert.deepEqual(await store.history(acme, id('a1'), { page: 1, pageSize: 20 }), { items: [], total: 0 });
  });

  over('every version is stored, with its audit entry', async (store) => {
    const [first, second] = [agent('a1'), agent('a1', { version: 2, name: 'Ann \u0000 \ud800 😀' })];
    assert.equal(await save(store, first), 'saved');
    assert.equal(await save(store, second), 'saved');

    assert.deepEqual(await store.get(acme, id('a1')), second);
    assert.deepEqual(await store.get(acme, id('a1'), 1), first);
    assert.equal(await store.get(acme, id('a1'), 3), null);
    assert.deepEqual(await store.versions(acme, id('a1'), FIRST), { items: [second, first], total: 2 });
    assert.deepEqual(await store.versions(acme, id('a1'), { page: 2, pageSize: 1 }), {
      items: [first],
      total: 2,
    });
    assert.deepEqual(await store.history(acme, id('a1'), { page: 1, pageSize: 20 }), {
      items: [audit(second), audit(first)],
      total: 2,
    });
    assert.deepEqual(await store.history(acme, id('a1'), { page: 2, pageSize: 1 }), {
      items: [audit(first)],
      total: 2,
    });
  });

  over('a change of a version that is no longer the newest is stale and leaves no trace', async (store) => {
    await save(store, agent('a1'));
    await save(store, agent('a1', { version: 2 }));

    assert.equal(await save(store, agent('a1', { version: 2, name: 'late' })), 'stale');
    assert.equal(await save(store, agent('a1', { name: 'again' })), 'stale');
    assert.equal(await save(store, agent('new', { version: 2 })), 'stale');
    assert.equal((await store.versions(acme, id('a1'), FIRST)).total, 2);
    assert.equal((await store.history(acme, id('a1'), { page: 1, pageSize: 20 })).total, 2);
  });

  over('of changes at the same time exactly one is saved', async (store) => {
    const outcomes = await Promise.all(
      ['x', 'y', 'z'].map((each) => save(store, agent('a1', { name: each }))),
    );

    assert.deepEqual(outcomes.toSorted(), ['saved', 'stale', 'stale']);
  });

  over('a slug belongs to one live agent; deleting it sets the slug free', async (store) => {
    await save(store, agent('a1', { slug: 'support' }));
    assert.equal(await save(store, agent('a2', { slug: 'support' })), 'taken');
    assert.equal(await save(store, agent('a1', { slug: 'support', version: 2 })), 'saved');

    await save(store, agent('a1', { slug: 'support', version: 3, deleted_at: at(3) }));
    assert.equal(await save(store, agent('a2', { slug: 'support' })), 'saved');
    assert.equal(await save(store, agent('a1', { slug: 'support', version: 4 })), 'taken');
    assert.equal(await save(store, agent('a1', { slug: 'other', version: 4 })), 'saved');
  });

  over('live agents are counted when one is new or comes back', async (store) => {
    assert.equal(await save(store, agent('a1'), 2), 'saved');
    assert.equal(await save(store, agent('a2'), 2), 'saved');
    assert.equal(await save(store, agent('a3'), 2), 'full');
    assert.equal(await save(store, agent('a1', { version: 2 }), 1), 'saved', 'a change needs no room');

    await save(store, agent('a1', { version: 3, deleted_at: at(3) }), 2);
    assert.equal(await save(store, agent('a3'), 2), 'saved');
    assert.equal(await save(store, agent('a1', { version: 4 }), 2), 'full');
    assert.equal(await save(store, agent('a1', { version: 4 }), 3), 'saved');
  });

  over('of agents created at the same time no more are saved than there is room for', async (store) => {
    const outcomes = await Promise.all(
      ['a', 'b', 'c', 'd'].map((each) => save(store, agent(`new-${each}`), 2)),
    );

    assert.deepEqual(outcomes.toSorted(), ['full', 'full', 'saved', 'saved']);
    assert.equal((await ids(store)).length, 2);
  });

  over('a slug names its live agent where no id does', async (store) => {
    const [first, second] = [agent('a1', { slug: 'front' }), agent('a1', { version: 2, slug: 'front' })];
    for (const each of [first, second, agent('front-2', { slug: 'other' })]) await save(store, each);
    await save(store, agent('a9', { slug: 'front-2' }));

    assert.deepEqual(await store.get(acme, id('front')), second);
    assert.deepEqual(await store.get(acme, id('front'), 1), first);
    assert.deepEqual((await store.versions(acme, id('front'), FIRST)).items, [second, first]);
    assert.equal((await store.history(acme, id('front'), FIRST)).total, 2);
    assert.equal((await store.get(acme, id('front-2')))?.slug, 'other', 'an id is looked for first');
    assert.equal(await store.get(umbrella, id('front')), null);
    await save(store, agent('a1', { version: 3, slug: 'front', deleted_at: at(3) }));
    assert.equal(await store.get(acme, id('front')), null);
  });

  over('a deleted agent is in no list, but is found by its id', async (store) => {
    await save(store, agent('a1'));
    const deleted = agent('a1', { version: 2, deleted_at: at(2) });
    await save(store, deleted);

    assert.deepEqual(await ids(store), []);
    assert.deepEqual(await store.get(acme, id('a1')), deleted);
  });

  over('lists come in the order of creation, and pages stay while others write', async (store) => {
    await save(store, agent('a3', { created_at: at(1) }));
    for (const each of ['a1', 'a2']) await save(store, agent(each, { created_at: at(2) }));
    assert.deepEqual(await ids(store, { page: 1, pageSize: 2 }), ['a3', 'a1']);
    await save(store, agent('a1', { version: 2, created_at: at(2) }));
    await save(store, agent('a0', { created_at: at(3) }));

    assert.deepEqual(await ids(store), ['a3', 'a1', 'a2', 'a0']);
    assert.deepEqual(await ids(store, { page: 2, pageSize: 2 }), ['a2', 'a0']);
    assert.equal((await store.list(acme, { page: 2, pageSize: 2 })).total, 4);
    assert.deepEqual(await ids(store, { page: 9 }), []);
  });

  over('lists are narrowed by type, by tag and by text', async (store) => {
    await save(store, agent('a1', { type: 'rag', tags: ['Blue', 'a"b'], name: 'Ärztin ΣΟΦΙΑ' }));
    await save(store, agent('a2', { tags: ['blue', '100%'], description: '100% wool_' }));

    assert.deepEqual(await ids(store, { type: 'rag' }), ['a1']);
    assert.deepEqual(await ids(store, { tag: 'blue' }), ['a2']);
    assert.deepEqual(await ids(store, { tag: 'a"b' }), ['a1']);
    assert.deepEqual(await ids(store, { tag: 'blu' }), []);
    assert.deepEqual(await ids(store, { text: 'äRZT' }), ['a1']);
    assert.deepEqual(await ids(store, { text: 'σοφια' }), ['a1']);
    assert.deepEqual(await ids(store, { text: '0% W' }), ['a2']);
    assert.deepEqual(await ids(store, { text: 'l_' }), ['a2']);
    assert.deepEqual(await ids(store, { text: '%_' }), []);
    assert.deepEqual(await ids(store, { text: "'; drop table agents; --" }), []);
    assert.deepEqual(await ids(store, { text: '\u0000\ud800' }), []);
    assert.deepEqual(await ids(store, { type: 'rag', tag: 'blue' }), []);
    assert.equal((await store.list(acme, { page: 1, pageSize: 1, text: 'a' })).total, 2);
  });

  over('another tenant with the same ids sees nothing and disturbs nothing', async (store) => {
    await save(store, agent('a1', { slug: 'support' }), 1);
    assert.equal(await store.get(umbrella, id('a1')), null);
    assert.equal(await store.get(umbrella, id('a1'), 1), null);
    assert.equal((await store.versions(umbrella, id('a1'), FIRST)).total, 0);
    assert.equal((await store.history(umbrella, id('a1'), { page: 1, pageSize: 9 })).total, 0);
    assert.equal((await store.list(umbrella, { page: 1, pageSize: 9 })).total, 0);

    const theirs = agent('a1', { tenant_id: umbrella, slug: 'support', name: 'theirs' });
    assert.equal(await save(store, theirs, 1), 'saved');
    assert.equal((await store.get(acme, id('a1')))?.name, 'a1');
  });
}

/** Takes migrations 008 and later back, as PostgreSQL has them. */
export const UNDO_NODES = [
  'drop table batches, callbacks, changes, job_runs',
  'drop function nooble_lease(bigint, uuid, json)',
  'drop table limits, limit_leases',
  'drop table owners',
  'drop sequence epochs',
  'alter table turns drop column epoch',
  'drop function nooble_alive(bigint, uuid), nooble_alive_alone(bigint, uuid), nooble_bury(bigint, bigint, text)',
  'drop table nodes',
  'alter table turns drop column boot',
  'alter table if exists outgoing drop column boot',
  'create index turns_unfinished on turns (seq) where finished_at is null',
] as const;

/** Takes migration 012 back, for databases that are made older. */
export const UNDO_VERSIONS = 'drop table schema_version';

/** Takes migration 007 back. */
export const UNDO_AGENTS_BY_CREATION = [
  'drop index agents_by_creation',
  'alter table agents drop column created_at',
  'create index agents_by_change on agents (tenant_id, deleted, updated_at)',
] as const;
