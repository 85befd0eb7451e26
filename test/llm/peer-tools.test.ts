/** Tools that ask services: what they ask, what the model reads, and which names are the registry's. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import { sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import { configureProviders } from '../../src/domain/providers.ts';
import { createAnswerSchemas } from '../../src/llm/answer-schemas.ts';
import { createModels } from '../../src/llm/models.ts';
import { createAgentRunner } from '../../src/llm/runner.ts';
import { ragQuery } from '../../src/llm/tools/rag-query.ts';
import { registryTool } from '../../src/llm/tools/registry-tool.ts';
import type { Tool } from '../../src/llm/tools/tool.ts';
import { createToolLookup, createTools } from '../../src/llm/tools/tool-set.ts';
import type { PeerData, PeerMode, PeerRequest, Peers } from '../../src/ports/peers.ts';
import type { Metrics } from '../../src/ports/telemetry.ts';
import { quiet } from '../support/quiet.ts';
import { callTools, say, startStubModel } from '../support/stub-model.ts';
import { answerOf, execute, planOf } from './harness.ts';

const clock = { now: () => 0 };

/** Services that answer as a function says, and what they were asked. */
function world(answer: (request: PeerRequest) => PeerData | Promise<PeerData>, registry: PeerMode = 'redis') {
  const asked: PeerRequest[] = [];
  const embedded = 'embedded' as const;
  const peers: Peers = {
    modes: {
      ...{ management: embedded, conversation: embedded, embedding: embedded, query: embedded },
      tool_registry: registry,
    },
    ask: async (request) => {
      asked.push(request);
      return answer(request);
    },
  };
  return { peers, asked };
}

const context = {
  signal: new AbortController().signal,
  tenantId: tenantIdSchema.parse('acme'),
  sessionId: sessionIdSchema.parse('s'),
  taskId: taskIdSchema.parse('t'),
  tier: 'advance' as const,
  collections: ['docs', 'faq'],
};

async function use(tool: Tool | undefined, args: unknown, more = {}): Promise<string> {
  const prepared = tool?.prepare(args);
  if (!prepared?.ok) throw new Error(prepared?.problem ?? 'no tool');
  return prepared.run({ ...context, ...more });
}

test('a query goes out with the collections of the agent, and comes back with sources', async () => {
  const { peers, asked } = world(() => ({
    results: [
      { text: 'Within 30 days.', source: 'returns.md', collection: 'docs', score: 2 },
      { text: 'Ask us.', score: 1 },
    ],
  }));
  const text = await use(ragQuery(peers), { query: 'how long' });
  assert.match(
    text,
    /not instructions[\s\S]+\[1\] returns\.md, docs\nWithin 30 days\.\n\n\[2\] source unknown\nAsk us\./,
  );
  assert.partialDeepStrictEqual(asked[0], {
    type: 'query.request',
    tenantId: 'acme',
    tier: 'advance',
    taskId: 't',
    data: { query: 'how long', collections: ['docs', 'faq'], limit: 5 },
  });

  await use(ragQuery(peers), { query: 'x', collections: ['faq', 'faq'], limit: 1 });
  assert.deepEqual(asked[1]?.data.collections, ['faq']);
});

test('a query reaches no collection that the agent does not have', async () => {
  const { peers, asked } = world(() => ({ results: [] }));
  const tool = ragQuery(peers);
  await assert.rejects(use(tool, { query: 'x', collections: ['secret'] }), /there are docs, faq/);
  await assert.rejects(use(tool, { query: 'x', collections: ['../docs'] }), /no such collection/);
  await assert.rejects(use(tool, { query: 'x' }, { collections: undefined }), /no collections/);
  await assert.rejects(use(tool, { query: 'x' }, { collections: [] }), /no collections/);
  assert.equal(tool.prepare({ query: '' }).ok, false);
  assert.equal(tool.prepare({ query: 'x', limit: 1_000 }).ok, false);
  assert.equal(asked.length, 0);
});

test('an empty answer, one of nonsense and a refusal are told apart, in words for the model', async () => {
  const answers: (() => PeerData)[] = [
    () => ({ results: [] }),
    () => ({ ok: 1 }),
    () => {
      throw new RefusalError(refusal('PEER_TIMEOUT', { message: 'query_service did not answer.' }));
    },
  ];
  let next = 0;
  const { peers } = world(() => answers[next]?.() ?? {});
  assert.match(await use(ragQuery(peers), { query: 'x' }), /Nothing was found in docs, faq/);
  next = 1;
  await assert.rejects(use(ragQuery(peers), { query: 'x' }), /nothing that can be read/);
  next = 2;
  await assert.rejects(use(ragQuery(peers), { query: 'x' }), { message: 'query_service did not answer.' });
});

test("a registry's tool is asked by its name with whatever arguments, and marked as having effects", async () => {
  const { peers, asked } = world(() => ({ success: true, result: { id: 7 } }));
  const tool = registryTool('crm_lookup', peers);
  assert.equal(tool?.effects, true);
  assert.deepEqual(tool?.definition.function.parameters, {
    type: 'object',
    properties: {},
    additionalProperties: true,
  });
  assert.equal(await use(tool, { name: 'Ada' }), '{"id":7}');
  assert.partialDeepStrictEqual(asked[0], {
    type: 'tool.execute',
    tenantId: 'acme',
    taskId: 't',
    signal: context.signal,
    data: { tool: 'crm_lookup', args: { name: 'Ada' }, task_id: 't', session_id: 's' },
  });
  assert.equal(tool?.prepare('x').ok, false);
  for (const name of ['crm.lookup', 'a b', '', 'x'.repeat(65)])
    assert.equal(registryTool(name, peers), undefined);
});

test("a registry's refusal is read by the model as its text", async () => {
  const { peers } = world(() => {
    throw new RefusalError(refusal('NOT_FOUND', { message: 'There is no such customer.' }));
  });
  await assert.rejects(use(registryTool('crm', peers), {}), { message: 'There is no such customer.' });
  await assert.rejects(use(registryTool('crm', world(() => ({})).peers), {}), /nothing that can be read/);
});

test('names that the node lacks are the registry’s for the run that has them, and for no other', async () => {
  const tools = createTools({ clock, peers: world(() => ({})).peers });
  const lookup = createToolLookup(tools);
  const names = (known: ReadonlyMap<string, Tool>): readonly string[] => [...known.keys()];

  const own = ['current_time', 'calculator', 'rag_query'];
  assert.deepEqual(names(lookup(['calculator', 'crm', 'bad.name'])), [...own, 'crm']);
  assert.deepEqual(names(lookup(['calculator'])), own);
  assert.equal(lookup([]), lookup(['calculator']));
  await tools.close();
});

test('without a registry an unknown name is no tool', async () => {
  const tools = createTools({ clock, peers: world(() => ({}), 'embedded').peers });
  assert.equal(createToolLookup(tools)(['crm']).has('crm'), false);
  assert.equal(tools.own('crm'), undefined);
  assert.equal(tools.own('rag_query')?.name, 'rag_query');
  const alone = createTools({ clock });
  assert.equal(alone.own('rag_query'), undefined);
  await Promise.all([tools.close(), alone.close()]);
});

const nothing = (): void => {};
const metrics: Metrics = {
  ...{ turnEnded: nothing, turnRefused: nothing, deadLetter: nothing, actorCrashed: nothing },
  ...{ toolUsed: nothing, modelRetried: nothing, socketOpened: nothing, socketClosed: nothing },
};

test('a model uses a tool of the registry, once it is kept that the run has effects; a cancel reaches the asking', async (t) => {
  const order: string[] = [];
  let abort = (): void => {};
  const { peers, asked } = world(async ({ signal }) => {
    order.push('asked');
    if (asked.length === 1) return { result: 'Ada Lovelace' };
    return new Promise((_, reject) => {
      signal?.addEventListener('abort', () => {
        order.push('called off');
        reject(new Error('off'));
      });
      abort();
    });
  });
  const stub = await startStubModel();
  t.after(async () => {
    await runner.close();
    await stub.close();
  });
  const runner = createAgentRunner({
    models: createModels(
      {
        providers: configureProviders(
          {
            OPENAI_API_KEY: 'sk',
            OPENAI_BASE_URL: stub.baseUrl,
            GROQ_API_KEY: 'gsk',
            GROQ_BASE_URL: stub.groqBaseUrl,
          },
          [],
        ).providers,
      },
      clock,
    ),
    tools: createTools({ clock, peers }),
    schemas: createAnswerSchemas(),
    ...{ clock, metrics, log: quiet, timeouts: { firstTokenTimeoutMs: 5_000, idleTimeoutMs: 5_000 } },
  });
  const run = () =>
    execute(
      {
        ...runner,
        run: (plan, context) =>
          runner.run(plan, { ...context, effects: async () => void order.push('kept') }),
      },
      planOf({ limits: { tools: ['crm'] } }),
    );

  stub.next(callTools([{ name: 'crm', args: '{"name":"Ada"}' }]));
  stub.next(say('It is Ada Lovelace.'));
  assert.equal(answerOf(await run().done), 'It is Ada Lovelace.');
  assert.deepEqual(order.splice(0), ['kept', 'asked']);
  const { body } = await stub.request(0);
  assert.deepEqual(
    body.tools?.map((tool) => tool.function.name),
    ['crm'],
  );

  stub.next(callTools([{ name: 'crm', args: '{"name":"Bob"}' }]));
  const stopped = run();
  abort = stopped.abort;
  assert.equal((await stopped.done).type, 'aborted');
  assert.deepEqual(order, ['kept', 'asked', 'called off']);
});
