/** The tier table says what the protocol says, and a tiers file changes only what it names. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type AgentConfig, allowedTools, refuseAgent } from '../../src/domain/agent.ts';
import { DEFAULT_AGENT_ID } from '../../src/domain/ids.ts';
import { modelSize } from '../../src/domain/models.ts';
import {
  capped,
  lowestTier,
  TIER_TABLE,
  TIERS,
  type TierLimits,
  tierLimitsSchema,
  tierOverridesSchema,
  tierSchema,
  withOverrides,
} from '../../src/domain/tiers.ts';

const row = (key: keyof TierLimits) => TIERS.map((tier) => TIER_TABLE[tier][key]);

test('the table is the one that clients were promised', () => {
  assert.deepEqual(TIERS, ['free', 'advance', 'professional', 'enterprise']);
  assert.deepEqual(row('requests_per_minute'), [10, 50, 200, null]);
  assert.deepEqual(row('requests_per_day'), [100, 1_000, 10_000, null]);
  assert.deepEqual(row('requests_per_session_hour'), [50, 100, 300, 500]);
  assert.deepEqual(row('execution_timeout_s'), [30, 60, 120, 300]);
  assert.deepEqual(row('max_iterations'), [3, 5, 10, 20]);
  assert.deepEqual(row('tools_per_agent'), [2, 5, 10, null]);
  assert.deepEqual(row('tokens_per_run'), [4_000, 8_000, 16_000, 32_000]);
  assert.deepEqual(row('history_messages'), [10, 20, 40, 100]);
  assert.deepEqual(row('agents'), [1, 3, 10, null]);
  assert.deepEqual(row('collections_per_agent'), [1, 3, 10, null]);
  assert.deepEqual(row('executions'), [2, 10, 50, 500]);
  assert.deepEqual(row('waiting'), [10, 50, 500, 5_000]);
  assert.deepEqual(row('sockets'), [20, 200, 2_000, 50_000]);
  assert.deepEqual(row('wait_for_persistence'), [true, true, true, true]);
  assert.deepEqual(row('agent_cache_s'), [300, 300, 600, 600]);
  assert.deepEqual(row('conversation_cache_s'), [300, 300, 600, 600]);
  assert.deepEqual(row('conversation_cache_messages'), [20, 40, 80, 200]);
});

test('every row of the table satisfies its own schema, and a higher tier never has a smaller share', () => {
  for (const tier of TIERS) assert.deepEqual(tierLimitsSchema.parse(TIER_TABLE[tier]), TIER_TABLE[tier]);
  assert.deepEqual(
    row('weight'),
    row('weight').toSorted((one, other) => Number(one) - Number(other)),
  );
});

test('a tiers file changes what it names and nothing else, and leaves the table alone', () => {
  const before = structuredClone(TIER_TABLE);
  const overrides = tierOverridesSchema.parse({ free: { executions: 7, requests_per_day: null } });
  const table = withOverrides(TIER_TABLE, overrides);

  assert.deepEqual(table.free, { ...TIER_TABLE.free, executions: 7, requests_per_day: null });
  assert.deepEqual(table.enterprise, TIER_TABLE.enterprise);
  assert.deepEqual(TIER_TABLE, before);
});

test('a tiers file with an unknown tier, an unknown limit or a nonsensical value is refused', () => {
  for (const wrong of [
    { gold: {} },
    { free: { executionz: 1 } },
    { free: { executions: 0 } },
    { free: { executions: null } },
    { free: { requests_per_day: -1 } },
    { free: { requests_per_minute: 1.5 } },
    { free: { weight: 0 } },
    { free: { agent_cache_s: 0 } },
    { free: { conversation_cache_s: null } },
    { free: { conversation_cache_messages: 2.5 } },
    { free: { models: ['huge'] } },
    [],
    'free',
  ])
    assert.equal(tierOverridesSchema.safeParse(wrong).success, false, JSON.stringify(wrong));
});

test('an unknown tier is not a tier, in any spelling', () => {
  for (const wrong of ['gold', 'FREE', ' free', '', null, 'constructor', '__proto__'])
    assert.equal(tierSchema.safeParse(wrong).success, false, String(wrong));
});

test("an operator's cap lowers a limit and never raises it", () => {
  assert.deepEqual([capped(10, undefined), capped(10, 3), capped(10, 30)], [10, 3, 10]);
});

test('the lowest tier that would do is named, or none', () => {
  assert.equal(
    lowestTier(TIER_TABLE, (limits) => limits.max_iterations >= 5),
    'advance',
  );
  assert.equal(
    lowestTier(TIER_TABLE, () => false),
    undefined,
  );
});

test('a tier filters tools by name first and by number then, in the order of the agent', () => {
  const limits = { ...TIER_TABLE.advance, tools: ['b', 'c', 'd'], tools_per_agent: 2 };

  assert.deepEqual(allowedTools(['a', 'c', 'b', 'd'], limits), ['c', 'b']);
  assert.deepEqual(allowedTools(['a', 'x'], TIER_TABLE.enterprise), ['a', 'x']);
  assert.deepEqual(allowedTools(['calculator', 'current_time'], TIER_TABLE.free), ['current_time']);
});

test('small models are known by name, and what nobody knows is large', () => {
  for (const small of [
    'gpt-4.1-mini',
    'gpt-4o-mini-2024-07-18',
    'gpt-5-nano',
    'llama-3.1-8b-instant',
    'llama3-8b-8192',
  ])
    assert.equal(modelSize('openai', small), 'small', small);
  for (const large of [
    'gpt-4.1',
    'gpt-4-minimax',
    'mixtral-8x8b',
    'llama-3.3-70b-versatile',
    'mini',
    '',
    'o3-mini',
  ])
    assert.equal(modelSize('groq', large), 'large', large);
  assert.equal(modelSize('offline', 'offline-50x0'), 'small');
});

const agent: AgentConfig = {
  id: DEFAULT_AGENT_ID,
  version: 1,
  type: 'conversational',
  provider: 'openai',
  model: 'gpt-4.1',
  temperature: 0.7,
  maxTokens: null,
  systemPrompt: '',
  tools: [],
  maxIterations: null,
  isActive: true,
};

test('an agent that is off, or whose model the tier lacks, is refused with a reason', () => {
  assert.equal(refuseAgent({ ...agent, isActive: false }, TIER_TABLE.enterprise)?.code, 'AGENT_INACTIVE');
  assert.equal(refuseAgent(agent, TIER_TABLE.free)?.code, 'TIER_LIMIT');
  assert.equal(refuseAgent(agent, TIER_TABLE.advance), null);
  assert.equal(refuseAgent({ ...agent, model: 'gpt-4.1-mini' }, TIER_TABLE.free), null);
});
