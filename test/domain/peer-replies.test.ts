/** What external services answer is read in every spelling they use, and nothing they answer breaks the reader. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { agentIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import { readAgent } from '../../src/domain/peer-agents.ts';
import { readHistory, readPassages, readToolResult, replyRefusal } from '../../src/domain/peer-replies.ts';

const asked = {
  tenantId: tenantIdSchema.parse('acme'),
  agentId: agentIdSchema.parse('sales'),
  defaults: { provider: 'offline', model: 'offline-echo' } as const,
  nowMs: Date.parse('2026-01-02T03:04:05.678Z'),
};
type Fields = Readonly<Record<string, unknown>>;
const agentOf = (config: Fields) => {
  const read = readAgent({ success: true, agent_config: { agent_id: 'sales', ...config } }, asked);
  if (!read.ok) throw new Error(read.error.message);
  return read.agent;
};
const wrongField = (data: Fields): string => {
  const read = readAgent(data, asked);
  return read.ok ? 'read' : (/whose (.+) is wrong/.exec(read.error.message)?.[1] ?? read.error.message);
};

test('a refusal is read whether it is a text, a code with a text, or only success: false', () => {
  const code = (data: Fields): string | undefined => replyRefusal(data)?.code;

  assert.equal(code({ success: true, result: 1 }), undefined);
  assert.equal(code({ success: true, error: null, status: 'success' }), undefined);
  assert.equal(code({ success: false }), 'INTERNAL');
  assert.equal(code({ success: true, error: { code: 'TIER_LIMIT' } }), 'TIER_LIMIT');
  assert.equal(code({ error: 'x', error_code: 'rate-limited' }), 'RATE_LIMITED');
  assert.equal(code({ error: { error_code: 'VALIDATION_ERROR' } }), 'INVALID_REQUEST');
  assert.equal(code({ error: { code: 'AgentHasGone' } }), 'INTERNAL');
  assert.equal(code({ error: { code: 'constructor' } }), 'INTERNAL');
  assert.equal(code({ success: false, error: 'Agent not found' }), 'NOT_FOUND');
  assert.equal(code({ success: false, message: 'Agente no encontrado' }), 'NOT_FOUND');
  assert.equal(code({ status: 'failed' }), 'INTERNAL');

  assert.deepEqual(replyRefusal({ error: { code: 'OVERLOADED', message: 'later', retry_after_ms: 50 } }), {
    code: 'OVERLOADED',
    message: 'later',
    retryable: true,
    retry_after_ms: 50,
  });
  assert.equal(replyRefusal({ error: 'x'.repeat(10_000) })?.message.length, 500);
});

test('an agent of our own spelling is read as it is, and what it leaves out has defaults', () => {
  const full = agentOf({
    name: 'Sales',
    slug: 'sales-one',
    type: 'rag',
    provider: 'groq',
    model: 'llama-3.1-8b-instant',
    temperature: 0.1,
    max_tokens: 500,
    system_prompt: 'Sell.',
    tools: ['calculator'],
    collections: ['docs'],
    max_iterations: 4,
    is_active: false,
    minimum_tier: 'advance',
    tags: ['a', 'a', 7],
    version: 3,
    created_at: '2025-01-01T00:00:00',
  });
  assert.equal(full.model, 'llama-3.1-8b-instant');
  assert.equal(full.is_active, false);
  assert.equal(full.version, 3);
  assert.equal(full.created_at, '2025-01-01T00:00:00.000Z');
  assert.deepEqual(full.tags, ['a']);

  const bare = agentOf({});
  assert.deepEqual(
    [bare.id, bare.name, bare.slug, bare.provider, bare.model, bare.type, bare.is_active, bare.version],
    ['sales', 'sales', 'sales', 'offline', 'offline-echo', 'conversational', true, 1],
  );
});

test('an agent in old spellings is read, its configuration nested or not', () => {
  const old = agentOf({
    agent_name: 'Ventas',
    agent_type: 'RAG',
    version: '2.1',
    is_active: 'true',
    config: {
      llm_model: 'gpt-4.1-mini',
      prompt: 'Vende.',
      max_tokens: 0,
      tools: [{ name: 'calculator' }, { function: { name: 'rag_query' } }, { name: 'x', enabled: false }],
      collection_ids: [{ collection_id: 'docs' }, 'docs'],
    },
  });
  assert.deepEqual(
    [old.name, old.type, old.version, old.provider, old.model, old.system_prompt, old.max_tokens],
    ['Ventas', 'rag', 2, 'openai', 'gpt-4.1-mini', 'Vende.', null],
  );
  assert.deepEqual([old.tools, old.collections], [['calculator', 'rag_query'], ['docs']]);

  assert.equal(agentOf({ model: { provider: 'Groq', name: 'gemma2-9b' } }).provider, 'groq');
  assert.equal(agentOf({ model: 'groq/llama-3.1-8b-instant' }).model, 'llama-3.1-8b-instant');
  assert.deepEqual(agentOf({ tools: { web_search: true, calculator: false } }).tools, ['web_search']);
  assert.equal(agentOf({ status: 'inactive' }).is_active, false);
  assert.notEqual(agentOf({ deleted_at: '2026-01-01T00:00:00Z' }).deleted_at, null);
});

test('an agent that says something which cannot be meant is refused by the name of the field', () => {
  const config = (fields: Fields): Fields => ({ agent_config: { agent_id: 'sales', ...fields } });

  assert.equal(wrongField(config({ provider: 'anthropic', model: 'claude' })), 'provider');
  const own = { ...asked, providers: ['anthropic', 'offline'] };
  assert.ok(readAgent(config({ provider: 'anthropic', model: 'claude' }), own).ok);
  assert.equal(wrongField(config({ provider: 'openai' })), 'model');
  assert.equal(wrongField(config({ model: 7 })), 'model');
  assert.equal(wrongField(config({ temperature: 'hot' })), 'temperature');
  assert.equal(wrongField(config({ system_prompt: { text: 'x' } })), 'system_prompt');
  assert.equal(wrongField(config({ tools: 'calculator' })), 'tools');
  assert.equal(wrongField(config({ tools: ['../x'] })), 'tools.0');
  assert.equal(wrongField(config({ is_active: 'perhaps' })), 'is_active');
  assert.equal(wrongField(config({ minimum_tier: 'gold' })), 'minimum_tier');
  assert.equal(wrongField({ agent_config: { agent_id: 'other' } }), 'agent_id');
  assert.equal(wrongField({ agent_config: { agent_id: 'sales', tenant_id: 'globex' } }), 'tenant_id');
  assert.equal(wrongField({ agent_config: 'sales' }), 'agent_config');
  assert.equal(wrongField({ success: true }), 'agent_id');
});

test('a history is read in every spelling, newest last, and no longer than asked for', () => {
  const read = readHistory(
    {
      history: [
        { sender: 'human', message: 'one', timestamp: 1_767_323_045 },
        { role: 'assistant', content: [{ type: 'text', text: 'two' }] },
        { role: 'system', content: 'hidden' },
        { role: 'user', content: '' },
        'nonsense',
        { role: 'user', content: 'three', task_id: 't3', created_at: '2026-01-03 00:00:00' },
      ],
    },
    10,
    asked.nowMs,
  );
  assert.deepEqual(
    read?.map(({ role, content, taskId, atMs }) => [role, content, taskId, new Date(atMs).toISOString()]),
    [
      ['user', 'one', 'history:0', '2026-01-02T03:04:05.000Z'],
      ['assistant', 'two', 'history:0', '2026-01-02T03:04:05.000Z'],
      ['user', 'three', 't3', '2026-01-03T00:00:00.000Z'],
    ],
  );
  const many = Array.from({ length: 50 }, (_, n) => ({
    role: 'user',
    content: `${n}`,
    created_at: 1e12 - n,
  }));
  assert.deepEqual(
    readHistory({ conversation: { messages: many } }, 2, 0)?.map(({ content }) => content),
    ['1', '0'],
  );
  assert.equal(readHistory({ messages: 'none' }, 10, 0), null);
});

test('passages and results of tools are read from whatever holds them', () => {
  const passage = { page_content: 'Text', metadata: { source: 'a.md', collection_name: 'docs' }, score: 0.5 };
  assert.deepEqual(readPassages({ documents: [passage, { text: '' }, 3] }, 5), [
    { text: 'Text', source: 'a.md', collection: 'docs', score: 0.5 },
  ]);
  assert.equal(readPassages({ results: Array(200).fill('x') }, 3)?.length, 3);
  assert.equal(readPassages({ results: ['x'.repeat(50_000)] }, 3)?.[0]?.text.length, 8_000);
  assert.equal(readPassages({ answer: 'It is.' }, 3)?.[0]?.text, 'It is.');
  assert.equal(readPassages({ success: true }, 3), null);

  assert.equal(readToolResult({ result: 'done' }), 'done');
  assert.equal(readToolResult({ output: { n: 3n } }), '{"n":"3"}');
  assert.equal(readToolResult({ success: true }), 'Done.');
  assert.equal(readToolResult({}), null);
});

test('nothing that a service can answer makes a reader throw', () => {
  const data = fc.dictionary(
    fc.oneof(
      fc.constantFrom(
        ...[
          'error',
          'success',
          'agent_config',
          'messages',
          'results',
          'result',
          'agent_id',
          'config',
          'tools',
        ],
        ...[
          'model',
          'is_active',
          'version',
          'created_at',
          '__proto__',
          'role',
          'content',
          'metadata',
          'status',
        ],
      ),
      fc.string(),
    ),
    fc.oneof(fc.anything(), fc.array(fc.dictionary(fc.string(), fc.anything()))),
  );
  fc.assert(
    fc.property(data, (reply) => {
      replyRefusal(reply);
      readAgent(reply, asked);
      readAgent({ agent_config: { ...reply, agent_id: 'sales' } }, asked);
      readHistory(reply, 5, 0);
      readPassages(reply, 5);
    }),
    { numRuns: 400 },
  );
});
