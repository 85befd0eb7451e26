/** What is known of a model by its name, and what an operator's file changes of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type AgentConfig, historyTokens, refuseAgent } from '../../src/domain/agent.ts';
import { agentIdSchema } from '../../src/domain/ids.ts';
import {
  contextTokens,
  factsOf,
  MODEL_TABLE,
  modelSize,
  modelsFileSchema,
  withModels,
} from '../../src/domain/models.ts';
import { TIER_TABLE } from '../../src/domain/tiers.ts';

const agent: AgentConfig = {
  id: agentIdSchema.parse('a1'),
  version: 1,
  type: 'conversational',
  provider: 'openai',
  model: 'gpt-4.1-mini',
  temperature: 0.7,
  maxTokens: null,
  systemPrompt: '',
  tools: [],
  maxIterations: null,
  isActive: true,
};

const laid = (file: unknown) => withModels(MODEL_TABLE, modelsFileSchema.parse(file));

test('windows and limits of answers are known by the beginning of a name, the closer one first', () => {
  const known: readonly [string, number, number | undefined][] = [
    ['gpt-4o-mini-2024-07-18', 128_000, 16_384],
    ['gpt-4.1-nano', 1_047_576, 32_768],
    ['gpt-4-0613', 8_192, 8_192],
    ['gpt-4-turbo', 128_000, 4_096],
    ['gpt-5-mini', 400_000, 128_000],
    ['gpt-5-chat-latest', 128_000, 16_384],
    ['o3-mini', 200_000, 100_000],
    ['llama-3.1-8b-instant', 131_072, undefined],
    ['llama3-8b-8192', 8_192, 8_192],
    ['mixtral-8x7b-32768', 32_768, undefined],
    ['mistral-small-latest', 131_072, undefined],
    ['deepseek-chat', 131_072, 8_192],
    ['gemini-2.5-flash', 1_048_576, 65_536],
    ['qwen3:8b', 40_960, undefined],
  ];
  for (const [model, window, output] of known) {
    const facts = factsOf(MODEL_TABLE, 'any', model);
    assert.deepEqual([facts.window, facts.output], [window, output], model);
  }
});

test('a gateway puts an organisation before the name, and case makes no difference', () => {
  assert.equal(factsOf(MODEL_TABLE, 'openrouter', 'openai/gpt-4o').window, 128_000);
  assert.equal(factsOf(MODEL_TABLE, 'vllm', 'meta-llama/Llama-3.1-8B-Instruct').window, 131_072);
});

test('of a model that nobody knows, nothing is known but what most can take', () => {
  assert.deepEqual(factsOf(MODEL_TABLE, 'vllm', 'house-model'), {});
  assert.equal(contextTokens(MODEL_TABLE, 'vllm', 'house-model'), 32_768);
  assert.equal(contextTokens(MODEL_TABLE, 'offline', 'offline-echo'), 8_192);
});

test('a file is laid over the table field by field, its first row first', () => {
  const table = laid({
    'GPT-4o*': { output: 100 },
    'house-*-large': { window: 9_000 },
    'house-*': { window: 5_000, output: 50 },
    'vllm/*': { size: 'small' },
  });

  assert.deepEqual(factsOf(table, 'openai', 'gpt-4o'), { window: 128_000, output: 100 });
  assert.deepEqual(factsOf(table, 'vllm', 'house-x-large'), { window: 9_000, output: 50, size: 'small' });
  assert.deepEqual(factsOf(table, 'other', 'house-x'), { window: 5_000, output: 50 });
  assert.deepEqual(factsOf(table, 'other', 'my-house-x'), {});
});

test('a file with anything else in it is refused', () => {
  const many = Object.fromEntries(Array.from({ length: 1_001 }, (_, at) => [`m${at}`, {}]));
  for (const wrong of [
    ...[null, 1, 'x', [], [{}], { m: null }, { m: 1 }, { m: [] }, many],
    ...[{ m: { window: '8192' } }, { m: { window: 0 } }, { m: { window: 1.5 } }, { m: { window: 1e12 } }],
    ...[{ m: { output: -1 } }, { m: { size: 'huge' } }, { m: { colour: 1 } }, { 'a b': {} }, { '': {} }],
    { ['x'.repeat(201)]: {} },
  ])
    assert.equal(modelsFileSchema.safeParse(wrong).success, false, JSON.stringify(wrong)?.slice(0, 80));
});

test('no pattern makes the comparison slow, and one of stars alone fits everything', () => {
  const stars = laid({ [`${'*a'.repeat(99)}*`]: { window: 1_000 }, '***': { output: 7 } });
  const startedMs = performance.now();
  for (let times = 0; times < 1_000; times += 1) factsOf(stars, 'p', `${'a'.repeat(98)}b`);
  assert.ok(performance.now() - startedMs < 2_000);
  assert.deepEqual(factsOf(stars, 'p', 'x'), { output: 7 });
  assert.equal(factsOf(stars, 'p', 'a'.repeat(99)).window, 1_000);
});

test('a star stands for any text, none among it, and everything else for itself', () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom('a', 'b', '.', '*'), { minLength: 1, maxLength: 8 }),
      fc.array(fc.constantFrom('a', 'b', '.'), { minLength: 1, maxLength: 10 }),
      (pattern, name) => {
        const text = pattern.join('');
        const expression = new RegExp(`^${text.replaceAll('.', '\\.').replaceAll('*', '.*')}$`);
        const found =
          factsOf(withModels([], { [text]: { window: 300 } }), '-', name.join('')).window !== undefined;
        assert.equal(found, expression.test(name.join('')) || expression.test(`-/${name.join('')}`));
      },
    ),
  );
});

test('at providers of any names, a model is small whose name says so, or that has less than ten billion parameters', () => {
  for (const small of [
    ...['gpt-4o-mini', 'openai/gpt-4.1-nano', 'mistral-small-latest', 'ministral-8b-latest', 'llama3.2:3b'],
    ...['qwen2.5:0.5b', 'gemini-2.5-flash-lite', 'meta-llama/Llama-3.1-8B-Instruct', 'deepseek-r1:7b'],
  ])
    assert.equal(modelSize('house', small), 'small', small);
  for (const large of [
    ...['gpt-4o', 'mixtral-8x7b', 'mistral-large-latest', 'llama3.3:70b', 'qwen3-30b-a3b', 'minimax-m1'],
    ...['deepseek-chat', 'gemini-2.5-pro', 'llama-3.1-405b', 'smallest', ''],
  ])
    assert.equal(modelSize('house', large), 'large', large);
});

test('a file says which size a model has, and tiers go by that', () => {
  const table = laid({ 'house-*': { size: 'small' }, 'gpt-4.1-mini': { size: 'large' } });
  const house = { ...agent, provider: 'house', model: 'house-70b' };

  assert.equal(refuseAgent(house, TIER_TABLE.free)?.code, 'TIER_LIMIT');
  assert.equal(refuseAgent(house, TIER_TABLE.free, 'free', table), null);
  assert.equal(refuseAgent(agent, TIER_TABLE.free, 'free', table)?.code, 'TIER_LIMIT');
});

test('history has what the window leaves beside prompt and answer', () => {
  const table = laid({ 'tight-*': { window: 6_000 } });
  const tight = { ...agent, provider: 'house', model: 'tight-1' };
  const limits = TIER_TABLE.enterprise;

  assert.equal(historyTokens(tight, limits), 16_000);
  assert.equal(historyTokens(tight, limits, table), 2_999);
  assert.equal(historyTokens({ ...tight, maxTokens: 1_000 }, limits, table), 4_999);
});
