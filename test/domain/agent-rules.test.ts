/** Every rule that an agent breaks is named at once, with the tier that would allow it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { draftChange, draftNew } from '../../src/domain/agent-draft.ts';
import { type Agent, type AgentFields, agentFieldsSchema } from '../../src/domain/agent-record.ts';
import {
  agentWarnings,
  blankAgent,
  checkAgent,
  namedTools,
  readFields,
  refuseIssues,
  withDefaults,
} from '../../src/domain/agent-rules.ts';
import { agentIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import { configureProviders, knownProviders } from '../../src/domain/providers.ts';
import { TIER_TABLE, TIERS, type Tier } from '../../src/domain/tiers.ts';

const defaults = { provider: 'openai', model: 'gpt-4.1-mini' } as const;
const providers = knownProviders(configureProviders({}, []).providers);
const rules = { tiers: TIER_TABLE, providers, knownTools: ['current_time', 'calculator'], defaults };
const blank = blankAgent('Helper', defaults);

const brief = (issues: readonly { field: string; rule: string; tier?: string | undefined }[]) =>
  issues.map(({ field, rule, tier }) => [field, rule, tier]);

const stored = (fields: Partial<AgentFields> = {}): Agent => ({
  ...blank,
  ...fields,
  id: agentIdSchema.parse('a1'),
  tenant_id: tenantIdSchema.parse('acme'),
  template_id: null,
  version: 3,
  created_at: '2026-01-01T00:00:00.000Z',
  updated_at: '2026-01-02T00:00:00.000Z',
  deleted_at: null,
});

test('a name is enough, and what comes of it is allowed everywhere', () => {
  const agent = withDefaults({ name: ' Müller & Söhne: Auskunft ' }, defaults);

  assert.equal(agent.name, 'Müller & Söhne: Auskunft');
  assert.equal(agent.slug, 'muller-sohne-auskunft');
  assert.deepEqual([agent.provider, agent.model], ['openai', 'gpt-4.1-mini']);
  for (const tier of TIERS) assert.deepEqual(checkAgent(agent, tier, rules), []);
});

test('a provider that the node does not have is refused by name, one without its key is a warning', () => {
  const [issue, ...others] = checkAgent({ ...blank, provider: 'house' }, 'enterprise', rules);
  assert.deepEqual([issue?.field, issue?.rule, others.length], ['provider', 'unknown_provider', 0]);
  assert.match(issue?.message ?? '', /no provider house; there are openai, .*offline/);
  assert.equal(refuseIssues(issue ? [issue] : []).code, 'INVALID_REQUEST');

  const mistral = { ...blank, provider: 'mistral' };
  assert.deepEqual(checkAgent(mistral, 'enterprise', rules), []);
  const [warning] = agentWarnings(mistral, providers);
  assert.deepEqual([warning?.field, warning?.rule], ['provider', 'provider_not_set_up']);
  assert.match(warning?.message ?? '', /MISTRAL_API_KEY/);
  assert.deepEqual(agentWarnings({ provider: 'offline', model: 'offline-echo' }, providers), []);

  const chained = { ...mistral, fallbacks: [{ provider: 'house', model: 'm' }] };
  assert.deepEqual(brief(checkAgent(chained, 'enterprise', rules)), [
    ['fallbacks', 'unknown_provider', undefined],
  ]);
  const spare = { ...blank, provider: 'offline', fallbacks: [{ provider: 'gemini', model: 'm' }] };
  assert.deepEqual(brief(agentWarnings(spare, providers)), [['fallbacks', 'provider_not_set_up', undefined]]);
});

test('every limit of the free tier is named at once, each with the first tier that would do', () => {
  const agent: AgentFields = {
    ...blank,
    type: 'workflow',
    model: 'gpt-4.1',
    tools: ['calculator', 'current_time', 'abacus'],
    collections: ['a', 'b', 'c', 'd'],
    max_tokens: 8_001,
    max_iterations: 6,
    max_history_messages: 41,
    minimum_tier: 'advance',
  };

  assert.deepEqual(brief(checkAgent(agent, 'free', rules)), [
    ['tools', 'unknown_tool', undefined],
    ['tools', 'tools_per_agent', 'advance'],
    ['collections', 'collections_per_agent', 'professional'],
    ['model', 'models', 'advance'],
    ['type', 'agent_types', 'professional'],
    ['max_iterations', 'max_iterations', 'professional'],
    ['max_tokens', 'tokens_per_run', 'professional'],
    ['max_history_messages', 'history_messages', 'enterprise'],
    ['tools', 'tools', 'advance'],
    ['minimum_tier', 'minimum_tier', 'advance'],
  ]);
});

test('a tool that a tier promises may be named before the node has it', () => {
  const knownTools = namedTools(['calculator'], TIER_TABLE);
  const issues = (tier: Tier) =>
    checkAgent({ ...blank, tools: ['rag_query'] }, tier, { ...rules, knownTools });

  assert.deepEqual([...knownTools].sort(), ['calculator', 'current_time', 'rag_query']);
  assert.deepEqual(brief(issues('free')), [['tools', 'tools', 'advance']]);
  assert.deepEqual(issues('advance'), []);
});

test('what no tier allows names none', () => {
  const [issue] = checkAgent({ ...blank, max_iterations: 100 }, 'enterprise', rules);

  assert.deepEqual(brief(issue ? [issue] : []), [['max_iterations', 'max_iterations', undefined]]);
});

test('a rag agent needs a collection, an offline model must exist, and a prompt must be well formed', () => {
  const agent: AgentFields = {
    ...blank,
    type: 'rag',
    provider: 'offline',
    model: 'gpt-4.1',
    system_prompt: 'Hello {{name',
  };

  assert.deepEqual(brief(checkAgent(agent, 'enterprise', rules)), [
    ['collections', 'collections_required', undefined],
    ['model', 'unknown_model', undefined],
    ['system_prompt', 'template_syntax', undefined],
  ]);
});

for (const [prompt, right] of [
  ['no variable at all', true],
  ['{{name}} and {{ user.name }} and {{a-b_c.d}}', true],
  ['braces { } and }} and {"a": {"b": 1}} stay as they are', true],
  ['{{{name}}}', true],
  ['{{name', false],
  ['{{name} }', false],
  ['{{one {{two}}', false],
  ['{{#if x}}', false],
  ['{{}}', false],
  [`{{${'x'.repeat(101)}}}`, false],
] as const)
  test(`the prompt ${prompt.slice(0, 40)} is ${right ? 'well formed' : 'refused'}`, () => {
    const issues = checkAgent({ ...blank, system_prompt: prompt }, 'free', rules);
    assert.equal(issues.length === 0, right);
  });

test('a wrong type does not hide what is wrong with the tier, and says nothing about rules of its own field', () => {
  const { issues } = draftNew(
    { name: 7, tools: 'calculator', temperature: 3, model: 'gpt-4.1', nonsense: 1 },
    'free',
    rules,
  );

  assert.deepEqual(brief(issues), [
    ['name', 'invalid_type', undefined],
    ['tools', 'invalid_type', undefined],
    ['temperature', 'too_big', undefined],
    ['nonsense', 'unknown_field', undefined],
    ['model', 'models', 'advance'],
  ]);
});

test('what is no object, or has no name, is told so', () => {
  for (const wrong of [null, 'agent', 3, []])
    assert.deepEqual(brief(draftNew(wrong, 'free', rules).issues), [['', 'invalid_type', undefined]]);
  assert.deepEqual(brief(draftNew({}, 'free', rules).issues), [['name', 'required', undefined]]);
});

test('only limits of the tier make TIER_LIMIT; one other mistake makes INVALID_REQUEST', () => {
  const tierOnly = checkAgent({ ...blank, max_iterations: 4 }, 'free', rules);
  const mixed = checkAgent({ ...blank, max_iterations: 4, tools: ['abacus'] }, 'free', rules);

  assert.equal(refuseIssues(tierOnly).code, 'TIER_LIMIT');
  assert.equal(refuseIssues(mixed).code, 'INVALID_REQUEST');
  assert.deepEqual(refuseIssues(mixed).details, { issues: mixed });
});

test('a patch leaves what it does not name; a replacement gives it its default, the slug aside', () => {
  const current = stored({ slug: 'old', tags: ['a'], temperature: 0.1 });
  const options = { tier: 'professional', rules } as const;

  const patch = draftChange({ temperature: 1 }, current, { ...options, replace: false });
  assert.deepEqual(patch.fields, { ...blank, slug: 'old', tags: ['a'], temperature: 1 });
  assert.deepEqual(patch.changes, [{ field: 'temperature', from: 0.1, to: 1 }]);

  const put = draftChange({ name: 'New' }, current, { ...options, replace: true });
  assert.deepEqual(put.fields, { ...blank, name: 'New', slug: 'old' });
  assert.deepEqual(brief(draftChange({}, current, { ...options, replace: true }).issues), [
    ['name', 'required', undefined],
  ]);
});

test('an agent that was read may be sent back as it is, but its own fields may not be changed', () => {
  const current = stored();
  const options = { replace: true, tier: 'professional', rules } as const;

  assert.deepEqual(draftChange({ ...current }, current, options).changes, []);
  assert.deepEqual(brief(draftChange({ ...current, version: 9 }, current, options).issues), [
    ['version', 'unknown_field', undefined],
  ]);
});

test('an agent beyond a lowered tier can be renamed and switched off, and nothing else', () => {
  const current = stored({ model: 'gpt-4.1' });
  const draft = (patch: object) =>
    draftChange(patch, current, { replace: false, tier: 'free', rules }).issues;

  assert.deepEqual(draft({ is_active: false, name: 'Retired' }), []);
  assert.deepEqual(brief(draft({ temperature: 0 })), [['model', 'models', 'advance']]);
  assert.deepEqual(draft({ temperature: 0, model: 'gpt-4.1-mini' }), []);
});

test('whatever comes in, reading it never throws and keeps only what has the right shape', () => {
  const fields = Object.keys(agentFieldsSchema.shape);
  const anything = fc.oneof(
    fc.anything(),
    fc.dictionary(fc.oneof(fc.constantFrom(...fields), fc.string()), fc.anything()),
    fc.record(
      { name: fc.string(), tools: fc.array(fc.string()), temperature: fc.double() },
      { requiredKeys: [] },
    ),
  );
  fc.assert(
    fc.property(anything, fc.constantFrom(...TIERS), (raw, tier) => {
      const { patch } = readFields(raw);
      assert.ok(agentFieldsSchema.partial().safeParse(patch).success);
      const draft = draftNew(raw, tier, rules);
      assert.ok(agentFieldsSchema.safeParse(draft.fields).success);
    }),
  );
});

test('the tier that an issue names breaks that rule no more', () => {
  const agents = fc.record({
    type: fc.constantFrom('conversational' as const, 'rag' as const, 'workflow' as const),
    model: fc.constantFrom('gpt-4.1', 'gpt-4.1-mini'),
    max_iterations: fc.option(fc.integer({ min: 1, max: 30 })),
    max_tokens: fc.option(fc.integer({ min: 1, max: 40_000 })),
    collections: fc.uniqueArray(fc.string({ minLength: 1, maxLength: 5 }), { maxLength: 12 }),
    minimum_tier: fc.constantFrom(...TIERS),
  });
  fc.assert(
    fc.property(agents, fc.constantFrom(...TIERS), (fields, tier) => {
      const agent: AgentFields = { ...blank, ...fields };
      for (const issue of checkAgent(agent, tier, rules)) {
        if (!issue.tier) continue;
        const again = checkAgent(agent, issue.tier, rules);
        assert.ok(!again.some(({ field, rule }) => field === issue.field && rule === issue.rule));
      }
    }),
  );
});

test('beside a registry any tool may be named, as far as the tier has it', () => {
  const issues = (tier: Tier) =>
    checkAgent({ ...blank, tools: ['weather'] }, tier, { ...rules, knownTools: null });

  assert.deepEqual(issues('professional'), []);
  assert.deepEqual(
    issues('free').map(({ rule, tier }) => [rule, tier]),
    [['tools', 'professional']],
  );
});
