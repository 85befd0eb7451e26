/** The built-in templates work in the tiers that have them, and differences are told field by field. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refuseAgent, toConfig } from '../../src/domain/agent.ts';
import { AGENT_FIELDS, diffAgents, fieldsOf } from '../../src/domain/agent-diff.ts';
import { draftNew } from '../../src/domain/agent-draft.ts';
import { type Agent, agentFieldsSchema, agentSchema } from '../../src/domain/agent-record.ts';
import { blankAgent } from '../../src/domain/agent-rules.ts';
import { defaultAgent, defaultRecord } from '../../src/domain/default-agent.ts';
import { DEFAULT_AGENT_ID, sessionIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import { configureProviders, knownProviders } from '../../src/domain/providers.ts';
import {
  BUILT_IN_TEMPLATES,
  builtInTemplate,
  instantiate,
  readTemplate,
  templateIssue,
} from '../../src/domain/templates.ts';
import { TIER_TABLE, TIERS } from '../../src/domain/tiers.ts';
import { systemPrompt } from '../../src/llm/prompts.ts';

const defaults = { provider: 'offline', model: 'offline-echo' } as const;
const providers = knownProviders(configureProviders({}, []).providers);
const rules = { tiers: TIER_TABLE, providers, knownTools: ['current_time', 'calculator'], defaults };
const tenantId = tenantIdSchema.parse('acme');
const blank = blankAgent('Helper', defaults);

test('there are three, and each makes an agent that its first tier allows', () => {
  assert.deepEqual(
    BUILT_IN_TEMPLATES.map(({ id, slug, version }) => [id, slug, version]),
    ['customer_service', 'knowledge_base', 'sales_assistant'].map((id) => [id, id, 1]),
  );
  for (const template of BUILT_IN_TEMPLATES) {
    const tier = TIERS.find((one) => templateIssue(template, one, TIER_TABLE) === null);
    assert.ok(tier);
    const { issues, fields } = draftNew(
      instantiate(template, {
        name: 'Mine',
        ...(template.agent.type === 'rag' ? { collections: ['docs'] } : {}),
      }),
      tier,
      rules,
    );
    assert.deepEqual(issues, []);
    assert.equal(fields.name, 'Mine');
  }
});

test('customizations win over the template, and a rag agent without a collection is told so', () => {
  const sales = builtInTemplate('sales_assistant');
  const docs = builtInTemplate('knowledge_base');
  assert.ok(sales && docs);

  const mine = draftNew(instantiate(sales, { name: 'Mine', temperature: 0 }), 'professional', rules);
  assert.deepEqual([mine.fields.temperature, mine.fields.tools], [0, ['calculator', 'current_time']]);
  assert.deepEqual(
    draftNew(instantiate(docs, { name: 'Docs' }), 'professional', rules).issues.map(({ rule }) => rule),
    ['collections_required'],
  );
});

test('a template outside the tier names the first tier that has it', () => {
  const tiersOf = (id: string) =>
    TIERS.map(
      (tier) => templateIssue(builtInTemplate(id) ?? { tenant_id: 'acme', slug: id }, tier, TIER_TABLE)?.tier,
    );

  assert.deepEqual(tiersOf('customer_service'), [undefined, undefined, undefined, undefined]);
  assert.deepEqual(tiersOf('knowledge_base'), ['advance', undefined, undefined, undefined]);
  assert.deepEqual(tiersOf('sales_assistant'), ['professional', 'professional', undefined, undefined]);
  assert.deepEqual(tiersOf('own'), ['enterprise', 'enterprise', 'enterprise', undefined]);
});

test('the prompts read well with and without what they ask for', () => {
  for (const { agent } of BUILT_IN_TEMPLATES) {
    const plan = {
      tenantId,
      tier: 'free',
      agent: { id: DEFAULT_AGENT_ID, systemPrompt: agent.system_prompt ?? '' },
    } as const;
    const filled = systemPrompt(
      { ...plan, sessionId: sessionIdSchema.parse('s1'), context: { company_name: 'Acme' } },
      0,
    );
    assert.doesNotMatch(filled, /\{\{|undefined/);
    assert.match(filled, /1970-01-01/);
  }
});

test('a template of a tenant is checked in shape, tier and rules at once', () => {
  const wrong = { name: '', slug: 'Not A Slug', agent: { tools: ['abacus'], temperature: 9, model: 'x' } };
  const { input, issues } = readTemplate(wrong, 'professional', rules);

  assert.equal(input, null);
  assert.deepEqual(issues.map(({ field, rule }) => `${field} ${rule}`).sort(), [
    'agent.model unknown_model',
    'agent.temperature too_big',
    'agent.tools unknown_tool',
    'name too_small',
    'slug invalid_format',
    'template_id own_templates',
  ]);
  const right = { name: 'Docs', slug: 'our-docs', agent: { type: 'rag' } };
  assert.deepEqual(readTemplate(right, 'enterprise', rules), { input: right, issues: [] });
});

test('a difference names each field that differs, the order of tools included, and nothing else', () => {
  const response_format = { type: 'json_object' } as const;
  const before = { ...blank, tools: ['a', 'b'], tags: ['x'], response_format };
  const after = {
    ...before,
    name: 'Other',
    tools: ['b', 'a'],
    tags: ['x'],
    response_format: { ...response_format },
  };

  assert.deepEqual(diffAgents(before, after), [
    { field: 'name', from: 'Helper', to: 'Other' },
    { field: 'tools', from: ['a', 'b'], to: ['b', 'a'] },
  ]);
  assert.deepEqual(diffAgents(before, before), []);
  const whole = { ...after, fallbacks: [{ provider: 'groq', model: 'llama-3.1-8b-instant' }] };
  assert.equal(diffAgents(null, whole).length, AGENT_FIELDS.length);
  assert.equal(diffAgents(null, after).length, AGENT_FIELDS.length - 1, 'what is not there is no change');
  assert.deepEqual(Object.keys(fieldsOf(whole)).toSorted(), Object.keys(agentFieldsSchema.shape).toSorted());
  const asText = { ...before, response_format: null };
  const taken = { field: 'response_format', from: response_format, to: null };
  assert.deepEqual([diffAgents(before, asText), diffAgents(asText, blank).length], [[taken], 2]);
});

const record: Agent = defaultRecord(
  defaultAgent({
    models: { defaultProvider: 'offline', defaultModel: 'offline-echo' },
    execution: { defaultAgentType: 'conversational' },
  }),
  tenantId,
);

test('the agent default looks like a stored one', () => {
  assert.deepEqual(agentSchema.parse(record), record);
  assert.deepEqual([record.id, record.version, record.tenant_id], ['default', 1, 'acme']);
});

test('a stored agent becomes what executions read', () => {
  const config = toConfig({
    ...record,
    type: 'rag',
    version: 4,
    collections: ['docs'],
    max_history_messages: 6,
    minimum_tier: 'advance',
  });

  assert.deepEqual(
    [config.type, config.version, config.collections, config.maxHistoryMessages, config.minimumTier],
    ['conversational', 4, ['docs'], 6, 'advance'],
  );
  assert.deepEqual(config.tools, ['rag_query', ...record.tools], 'looking up is what a rag agent is for');
  assert.deepEqual(toConfig({ ...record, type: 'rag', tools: ['rag_query'] }).tools, ['rag_query']);
  assert.equal(toConfig({ ...record, type: 'workflow' }).type, 'langchain');
  assert.equal(refuseAgent(config, TIER_TABLE.free, 'free')?.code, 'TIER_LIMIT');
  assert.match(refuseAgent(config, TIER_TABLE.free, 'free')?.message ?? '', /advance/);
  assert.equal(refuseAgent(config, TIER_TABLE.advance, 'advance'), null);
});
