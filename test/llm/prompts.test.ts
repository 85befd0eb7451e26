/** System prompt templates, and the agent that every tenant has. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { defaultAgent } from '../../src/domain/default-agent.ts';
import {
  MAX_CONTEXT_UNITS,
  MAX_PROMPT_UNITS,
  MAX_VALUE_UNITS,
  promptProblem,
  systemPrompt,
} from '../../src/llm/prompts.ts';
import { planOf } from './harness.ts';

const NOW = Date.parse('2026-03-04T05:06:07.089Z');
const prompt = (template: string, context: Readonly<Record<string, unknown>> = {}): string =>
  systemPrompt(planOf({ agent: { systemPrompt: template }, context }), NOW);

test('variables come from the context, nested ones by their path', () => {
  const context = { name: 'Ada', order: { id: 7, lines: [1, 2] } };
  assert.equal(prompt('Hi {{name}}, {{ order.id }}: {{order.lines}}.', context), 'Hi Ada, 7: [1,2].');
});

test('the built-in variables are the node’s own and win over the context', () => {
  const template = '{{tenant_id}} {{session_id}} {{agent_id}} {{tier}} {{today}} {{now}}';
  const filled = prompt(template, { tenant_id: 'evil' });
  assert.ok(filled.startsWith('acme session-1 default professional 2026-03-04 2026-03-04T05:06:07.089Z'));
});

test('unknown variables and inherited properties become empty', () => {
  assert.equal(prompt('[{{nobody}}{{constructor}}{{__proto__.x}}]'), '[]');
});

test('values are not expanded again', () => {
  assert.equal(prompt('{{a}}', { a: '{{b}} $& $1', b: 'x' }).split('\n')[0], '{{b}} $& $1');
});

test('context that no variable names is appended as JSON, what is used is not', () => {
  const filled = prompt('Plan: {{plan}}.', { plan: 'gold', page: '/cart', user: { age: 7 } });
  assert.match(filled, /^Plan: gold\.\n\n.*JSON.*\n\{"page":"\/cart","user":\{"age":7\}\}$/s);
  assert.equal(prompt('Plain.'), 'Plain.');
});

test('a cyclic value neither fails nor loops', () => {
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  assert.equal(prompt('[{{cycle}}]', { cycle }), '[]');
});

test('any context keeps the prompt within its bounds', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.string(), (context, value) => {
      const filled = prompt('a {{x}} b', { ...context, x: value.repeat(50), rest: 'r'.repeat(9_000) });
      assert.ok(filled.startsWith('a '));
      assert.ok(filled.length <= MAX_VALUE_UNITS + MAX_CONTEXT_UNITS + 100);
    }),
  );
});

test('a variable behind a backslash is text', () => {
  assert.equal(
    prompt('\\{{a}} {{a}} \\{{ b.c }} \\{', { a: 1, b: 2 }).split('\n')[0],
    '{{a}} 1 {{ b.c }} \\{',
  );
});

test('what can not be filled in is refused by name, before it is built', () => {
  const problem = (template: string, context: Readonly<Record<string, unknown>>, window = 128_000) =>
    promptProblem(template, window, () => context)?.details;
  const text = (units: number): string => 'x'.repeat(units);
  const field = 'context.a';
  assert.equal(problem('{{a}}', { a: text(MAX_VALUE_UNITS) }), undefined);
  assert.deepEqual(problem('{{a}}', { a: text(MAX_VALUE_UNITS + 1) }), { field, limit: MAX_VALUE_UNITS });
  const nested = problem('{{a.b}}', { a: { b: [text(MAX_VALUE_UNITS)] } });
  assert.deepEqual(nested, { field: 'context.a.b', limit: MAX_VALUE_UNITS });
  assert.deepEqual(problem('{{a}}'.repeat(6_400), { a: text(2_000) }), { field, limit: MAX_PROMPT_UNITS });
  assert.deepEqual(problem('{{a}} {{a}}', { a: text(20_000) }, 8_192), { field, limit: 32_768 });
  assert.equal(
    problem('\\{{a}} {{tenant_id}} {{b}}', { a: text(99_999), tenant_id: text(99_999) }),
    undefined,
  );
  assert.equal(problem(`${text(32_000)}{{a}}`, {}, 4_096), undefined);
  assert.equal(problem('plain', { a: text(99_999) }), undefined);
});

test('text without braces comes through unchanged', () => {
  const plain = fc.string().filter((text) => !text.includes('{{'));
  fc.assert(fc.property(plain, (text) => assert.equal(prompt(text), text)));
});

test('the default agent follows the settings', () => {
  const settings = {
    models: { defaultProvider: 'offline', defaultModel: 'offline-echo' },
    execution: { defaultAgentType: 'conversational' },
  } as const;
  const agent = defaultAgent(settings);
  assert.deepEqual(
    [agent.id, agent.version, agent.type, agent.provider, agent.model, agent.tools],
    ['default', 1, 'conversational', 'offline', 'offline-echo', ['calculator', 'current_time']],
  );
});
