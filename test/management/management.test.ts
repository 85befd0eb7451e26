/** Agent management over stores in memory: what is kept, refused, told, and passed on to the live agents. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agentIdSchema, DEFAULT_AGENT_ID } from '../../src/domain/ids.ts';
import type { AgentStore } from '../../src/ports/management.ts';
import { openManagement, refused, someone, value } from '../actors/agent/agent-fixtures.ts';
import { TENANT, tenantId } from '../actors/fixtures.ts';
import { memoryStores } from '../support/stores.ts';

const FIRST = { page: 1, pageSize: 20 };
const ANY = { version: undefined };
const PATCH = { version: undefined, replace: false };
const PAGE = { page: 1, pageSize: 20 };
const NOBODY = agentIdSchema.parse('nobody');

test('a new agent is kept as version 1, told, passed on, and stands in its history', async () => {
  const { agents, notices, changed } = openManagement();
  const agent = value(await agents.create(someone(), { name: 'Front Desk', tags: ['a'] }));

  assert.deepEqual([agent.slug, agent.version, agent.model], ['front-desk', 1, 'offline-echo']);
  assert.deepEqual(changed, [agent]);
  assert.deepEqual(value(await agents.get(TENANT, agent.id)), agent);
  assert.deepEqual(value(await agents.list(TENANT, PAGE)).items, [agent]);
  const [entry] = value(await agents.history(TENANT, agent.id, PAGE)).items;
  assert.deepEqual(
    [entry?.action, entry?.actor, entry?.source, entry?.version],
    ['created', 'user:ann', 'api', 1],
  );
  assert.deepEqual(
    notices.map(({ event, service, tenant_id, data }) => [
      event,
      service,
      tenant_id,
      data.agent_name,
      data.version,
    ]),
    [['agent_created', 'agent-management', 'acme', 'Front Desk', 1]],
  );
});

test('an update is a new version with what changed, and one that changes nothing is none', async () => {
  const { agents, notices } = openManagement();
  const { id } = value(await agents.create(someone(), { name: 'Helper' }));
  const next = value(await agents.update(someone(), id, { temperature: 0, tags: ['x'] }, PATCH));
  const same = value(await agents.update(someone(), id, { temperature: 0 }, PATCH));

  assert.equal(next.version, 2);
  assert.deepEqual(same, next);
  assert.deepEqual(notices.at(-1)?.data, {
    agent_id: id,
    agent_name: 'Helper',
    version: 2,
    changes: ['temperature', 'tags'],
  });
  const [entry] = value(await agents.history(TENANT, id, PAGE)).items;
  assert.deepEqual(entry?.changes, [
    { field: 'temperature', from: 0.7, to: 0 },
    { field: 'tags', from: [], to: ['x'] },
  ]);
  assert.deepEqual(
    value(await agents.versions(TENANT, id, FIRST)).items.map(({ version }) => version),
    [2, 1],
  );
  assert.deepEqual(value(await agents.diff(TENANT, id, 1, 2)), entry?.changes);
  assert.equal(refused(await agents.version(TENANT, id, 9)).code, 'NOT_FOUND');
});

test('all that is wrong is named at once: shape, tier, slug and number of agents', async () => {
  const { agents } = openManagement();
  value(await agents.create(someone('free'), { name: 'Only one' }));
  const wrong = { name: '', slug: 'only-one', max_iterations: 9, tools: ['abacus'] };

  assert.deepEqual(refused(await agents.create(someone('free'), wrong)), {
    code: 'INVALID_REQUEST',
    issues: [
      'name too_small',
      'tools unknown_tool',
      'max_iterations max_iterations',
      'slug taken',
      ' agents',
    ],
  });
  assert.deepEqual(refused(await agents.create(someone('free'), { name: 'Second' })), {
    code: 'TIER_LIMIT',
    issues: [' agents'],
  });
  assert.deepEqual(refused(await agents.create(someone('free'), { name: 'Second', max_iterations: 9 })), {
    code: 'TIER_LIMIT',
    issues: ['max_iterations max_iterations', ' agents'],
  });
});

test('a slug that was asked for must be free; one made from the name gets a number', async () => {
  const { agents } = openManagement();
  const make = (input: object) => agents.create(someone('enterprise'), input);
  const slugs: string[] = [];
  for (let count = 0; count < 10; count += 1) slugs.push(value(await make({ name: 'Twin' })).slug);

  assert.deepEqual(slugs.slice(0, 3), ['twin', 'twin-2', 'twin-3']);
  assert.equal(new Set(slugs).size, 10);
  assert.equal(refused(await make({ name: 'Other', slug: 'twin' })).code, 'CONFLICT');
  const other = value(await make({ name: 'Other' }));
  assert.equal(refused(await agents.update(someone(), other.id, { slug: 'twin' }, PATCH)).code, 'CONFLICT');
});

test('If-Match that is stale is a conflict that names the present version; without it a write wins', async () => {
  const { agents } = openManagement();
  const { id } = value(await agents.create(someone(), { name: 'Helper' }));
  value(await agents.update(someone(), id, { temperature: 0 }, { version: 1, replace: false }));
  const stale = await agents.update(someone(), id, { temperature: 1 }, { version: 1, replace: false });

  assert.equal(stale.ok ? '' : stale.error.code, 'CONFLICT');
  assert.deepEqual(stale.ok ? '' : stale.error.details, { current_version: 2 });
  assert.equal(value(await agents.update(someone(), id, { temperature: 1 }, PATCH)).version, 3);
  assert.equal(refused(await agents.remove(someone(), id, { version: 2 })).code, 'CONFLICT');
});

test('a hundred writes at once without If-Match all win, one after the other', async () => {
  const { agents, changed } = openManagement();
  const { id } = value(await agents.create(someone(), { name: 'Helper' }));
  await Promise.all(
    Array.from({ length: 100 }, (_, index) =>
      agents.update(someone(), id, { description: `${index}` }, PATCH),
    ),
  );
  const agent = value(await agents.get(TENANT, id));

  assert.deepEqual([agent.version, agent.description], [101, '99']);
  assert.deepEqual(
    changed.map(({ version }) => version),
    Array.from({ length: 101 }, (_, index) => index + 1),
  );
});

/** A store in which another node is faster, so many times. */
function contested(times: number): AgentStore {
  const store = memoryStores().agents;
  let left = times;
  return {
    ...store,
    save(tenant, change) {
      if (change.replaces === 0 || left === 0) return store.save(tenant, change);
      left -= 1;
      return Promise.resolve('stale');
    },
  };
}

test('where another node was faster, a write is begun again a few times', async () => {
  for (const [times, code] of [
    [4, 2],
    [5, 'CONFLICT'],
  ] as const) {
    const { agents } = openManagement({ agents: contested(times) });
    const { id } = value(await agents.create(someone(), { name: 'Helper' }));
    const reply = await agents.update(someone(), id, { temperature: 0 }, PATCH);
    assert.equal(reply.ok ? reply.value.version : reply.error.code, code);
  }
  const { agents } = openManagement({ agents: contested(1) });
  const { id } = value(await agents.create(someone(), { name: 'Helper' }));
  const expected = await agents.update(someone(), id, { temperature: 0 }, { version: 1, replace: false });
  assert.equal(refused(expected).code, 'CONFLICT');
});

test('a rollback is a new version that equals the old one and obeys the tier of today', async () => {
  const { agents, notices } = openManagement();
  const one = value(await agents.create(someone(), { name: 'Helper', max_iterations: 8 }));
  value(await agents.update(someone(), one.id, { max_iterations: 2, name: 'Other' }, PATCH));
  const back = value(await agents.rollback(someone(), one.id, 1, ANY));

  assert.deepEqual({ ...back, version: 1, updated_at: one.updated_at }, one);
  assert.equal(back.version, 3);
  assert.deepEqual(notices.at(-1)?.data.changes, ['name', 'max_iterations']);
  const [entry] = value(await agents.history(TENANT, one.id, PAGE)).items;
  assert.equal(entry?.action, 'rolled_back');
  value(await agents.update(someone(), one.id, { max_iterations: 2 }, PATCH));
  assert.deepEqual(refused(await agents.rollback(someone('free'), one.id, 1, ANY)), {
    code: 'TIER_LIMIT',
    issues: ['max_iterations max_iterations'],
  });
  assert.equal(refused(await agents.rollback(someone(), one.id, 9, ANY)).code, 'NOT_FOUND');
  assert.equal(value(await agents.rollback(someone(), one.id, 4, ANY)).version, 4);
});

test('a deleted agent is gone but for its past, and comes back where there is room and its slug is free', async () => {
  const { agents, notices, changed } = openManagement();
  const one = value(await agents.create(someone('free'), { name: 'Helper' }));
  value(await agents.remove(someone(), one.id, ANY));

  assert.equal(refused(await agents.get(TENANT, one.id)).code, 'NOT_FOUND');
  assert.equal(refused(await agents.update(someone(), one.id, { name: 'x' }, PATCH)).code, 'NOT_FOUND');
  assert.equal(refused(await agents.remove(someone(), one.id, ANY)).code, 'NOT_FOUND');
  assert.equal(value(await agents.list(TENANT, PAGE)).total, 0);
  assert.equal(value(await agents.versions(TENANT, one.id, FIRST)).total, 2);
  assert.equal(notices.at(-1)?.event, 'agent_deleted');
  assert.notEqual(changed.at(-1)?.deleted_at, null);

  const two = value(await agents.create(someone('free'), { name: 'Helper' }));
  assert.equal(two.slug, 'helper');
  assert.equal(refused(await agents.restore(someone('professional'), one.id)).code, 'CONFLICT');
  value(await agents.update(someone(), two.id, { slug: 'other' }, PATCH));
  assert.deepEqual(refused(await agents.restore(someone('free'), one.id)), {
    code: 'TIER_LIMIT',
    issues: [' agents'],
  });
  const back = value(await agents.restore(someone('professional'), one.id));
  assert.deepEqual([back.version, back.deleted_at, back.slug], [3, null, 'helper']);
  assert.deepEqual(value(await agents.restore(someone(), one.id)), back);
  assert.deepEqual(
    value(await agents.history(TENANT, one.id, PAGE)).items.map(({ action }) => action),
    ['restored', 'deleted', 'created'],
  );
});

test('the agent default can be read and not changed', async () => {
  const { agents } = openManagement();
  const found = value(await agents.get(TENANT, DEFAULT_AGENT_ID));

  assert.deepEqual([found.id, found.version, found.tenant_id], ['default', 1, 'acme']);
  assert.equal(value(await agents.versions(TENANT, DEFAULT_AGENT_ID, FIRST)).items.length, 1);
  assert.deepEqual(value(await agents.diff(TENANT, DEFAULT_AGENT_ID, 1, 1)), []);
  for (const write of [
    agents.update(someone(), DEFAULT_AGENT_ID, { name: 'Mine' }, PATCH),
    agents.remove(someone(), DEFAULT_AGENT_ID, ANY),
    agents.restore(someone(), DEFAULT_AGENT_ID),
    agents.rollback(someone(), DEFAULT_AGENT_ID, 1, ANY),
    agents.validate(someone(), {}, DEFAULT_AGENT_ID),
  ])
    assert.equal(refused(await write).code, 'CONFLICT');
});

test('a tenant neither sees nor changes what another has', async () => {
  const { agents } = openManagement();
  const { id } = value(await agents.create(someone(), { name: 'Helper' }));
  const stranger = { ...someone(), tenantId: tenantId('other') };

  assert.equal(refused(await agents.get(stranger.tenantId, id)).code, 'NOT_FOUND');
  assert.equal(refused(await agents.versions(stranger.tenantId, id, FIRST)).code, 'NOT_FOUND');
  assert.equal(refused(await agents.history(stranger.tenantId, id, PAGE)).code, 'NOT_FOUND');
  assert.equal(refused(await agents.update(stranger, id, { name: 'Mine' }, PATCH)).code, 'NOT_FOUND');
  assert.equal(refused(await agents.remove(stranger, id, ANY)).code, 'NOT_FOUND');
  assert.equal(value(await agents.create(stranger, { name: 'Helper' })).slug, 'helper');
});

test('a dry run names what a write would, changes nothing, and is told', async () => {
  const { agents, notices, changed } = openManagement();
  const { id } = value(await agents.create(someone('free'), { name: 'Helper' }));
  notices.length = 0;
  changed.length = 0;

  assert.deepEqual(value(await agents.validate(someone('free'), { temperature: 1 }, id)), {
    valid: true,
    issues: [],
  });
  const fresh = value(await agents.validate(someone('free'), { name: 'Helper', slug: 'helper' }, undefined));
  assert.deepEqual(
    fresh.issues.map(({ rule, tier }) => [rule, tier]),
    [
      ['taken', undefined],
      ['agents', 'advance'],
    ],
  );
  assert.equal(refused(await agents.validate(someone(), {}, NOBODY)).code, 'NOT_FOUND');
  assert.deepEqual(
    notices.map(({ event, data }) => [event, data.agent_id, data.valid, data.changes]),
    ['agent_validated', 'validation_complete', 'agent_validated', 'validation_complete'].map(
      (event, index) =>
        index < 2 ? [event, id, true, ['temperature']] : [event, null, false, notices.at(-1)?.data.changes],
    ),
  );
  assert.deepEqual(changed, []);
});

test('an agent comes out of a template with its customizations, where the tier has the template', async () => {
  const { agents } = openManagement();
  const make = (tier: 'free' | 'professional', template: string, input: unknown) =>
    agents.fromTemplate(someone(tier), template, input);

  const agent = value(await make('professional', 'sales_assistant', { name: 'Sally', temperature: 0 }));
  assert.deepEqual(
    [agent.name, agent.slug, agent.template_id, agent.temperature, agent.tools],
    ['Sally', 'sally', 'sales_assistant', 0, ['calculator', 'current_time']],
  );
  assert.deepEqual(refused(await make('free', 'sales_assistant', { name: 'Sally' })), {
    code: 'TIER_LIMIT',
    issues: ['template_id templates'],
  });
  assert.equal(refused(await make('free', 'nonsense', { name: 'x' })).code, 'NOT_FOUND');
  assert.deepEqual(refused(await make('professional', 'knowledge_base', { name: 'Docs' })).issues, [
    'collections collections_required',
  ]);
  assert.equal(refused(await make('professional', 'sales_assistant', 'x')).code, 'INVALID_REQUEST');
});

test('a store that fails is a refusal, nothing is told or passed on, and the next write goes on', async () => {
  const store = memoryStores().agents;
  let down = true;
  const { agents, notices, changed } = openManagement({
    agents: {
      ...store,
      save: (tenant, change) => (down ? Promise.reject(new Error('disk full')) : store.save(tenant, change)),
    },
  });

  assert.equal(refused(await agents.create(someone(), { name: 'Helper' })).code, 'STORE_UNAVAILABLE');
  assert.deepEqual([notices.length, changed.length], [0, 0]);
  down = false;
  value(await agents.create(someone(), { name: 'Helper' }));
});
