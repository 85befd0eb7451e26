/** What an answer has beside its text, on every wire: counts, how it ended, and what the model thought. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deltas, last, types } from '../support/chatter.ts';
import { life, startScene } from '../support/node.ts';
import {
  callTools,
  choice,
  DONE,
  line,
  raw,
  refuse,
  type Scenario,
  say,
  stallAfter,
} from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';
import type { Received } from '../support/websocket-client.ts';

const CALCULATES = callTools([{ name: 'calculator', args: '{"expression":"6*7"}' }], { usage: 20 });
/** A whole answer with these counts. */
const counted = (usage: unknown, finish = 'stop') =>
  raw(line(choice({ content: 'Hello.' })) + line({ ...choice({}, finish), usage }) + DONE);

for (const format of ['json', 'msgpack'] as const)
  test(`${format}: counts are sums over the calls of a run; the last of them says how it ended`, async (t) => {
    const node = await startScene(t);
    node.stub.next(CALCULATES, say('Forty-tw', { usage: 30, finish: 'length' }));
    const client = await node.chat('acme', 's1', {
      protocols: [format === 'json' ? 'nooble' : 'nooble.msgpack'],
    });
    const response = last(await client.turn('How much?'), 'chat.response');
    const { finish_reason, input_tokens, output_tokens, tokens_used } = response.data.execution_info;
    assert.deepEqual([finish_reason, input_tokens, output_tokens, tokens_used], ['length', 25, 25, 50]);
    const record = (await node.ask(`/api/chat/tasks/${response.task_id}`)).body;
    assert.deepEqual(record.execution_info, response.data.execution_info);
  });

test('counts that the provider does not give, or not for every call, are absent', async (t) => {
  const node = await startScene(t);
  const client = await node.chat('acme', 's1');
  const infoOf = async (...scenarios: readonly Scenario[]) => {
    node.stub.next(...scenarios);
    return last(await client.turn('Go on.'), 'chat.response').data.execution_info;
  };
  const half = await infoOf(counted({ prompt_tokens: 5, completion_tokens: -1, total_tokens: '12' }));
  assert.deepEqual([half.input_tokens, half.output_tokens, half.tokens_used], [5, undefined, 12]);
  for (const usage of [null, [], 'many', { prompt_tokens: 1.5, completion_tokens: {} }]) {
    const info = await infoOf(counted(usage, 'eos'));
    assert.deepEqual(
      [info.input_tokens, info.output_tokens, info.finish_reason],
      [undefined, undefined, 'stop'],
    );
    assert.ok(Number.isInteger(info.tokens_used) && info.tokens_used > 0);
  }
  const mixed = await infoOf(CALCULATES, say('42.', { usage: null }));
  assert.deepEqual([mixed.input_tokens, mixed.output_tokens], [undefined, undefined]);
});

test('a run that fails says what its calls came to, and of a call without an end nothing', async (t) => {
  const node = await startScene(t);
  node.stub.next(CALCULATES);
  const run = { agent_id: 'default', input: 'Go.', wait: true, execution_params: { max_iterations: 1 } };
  const { body: limited } = await node.ask('/api/executions', { body: run });
  assert.equal(limited.error.code, 'MAX_ITERATIONS');
  const { finish_reason, input_tokens, output_tokens } = limited.execution_info;
  assert.deepEqual([finish_reason, input_tokens, output_tokens], ['tool_calls', 10, 10]);

  node.stub.next(raw(line(choice({ content: 'Half of' })), { end: 'reset' }));
  const { body: broken } = await node.ask('/api/executions', { body: { ...run, execution_params: {} } });
  assert.equal(broken.error.code, 'MODEL_ERROR');
  assert.deepEqual('finish_reason' in broken.execution_info, false);
});

const thinks = (reasoning_content: string): string => line(choice({ content: null, reasoning_content }));
const THINKS = [
  thinks('Let me '),
  thinks('see.'),
  line(choice({ content: 'Yes.' })),
  line(choice({}, 'stop')) + DONE,
];
const thoughts = (frames: readonly Received[]): string =>
  frames.flatMap(({ type, data }) => (type === 'chat.reasoning' ? data.content : [])).join('');

for (const format of ['json', 'msgpack'] as const)
  test(`${format}: reasoning comes apart from the text, to sockets that asked, and stands in the record`, async (t) => {
    const node = await startScene(t);
    node.stub.next(raw(THINKS));
    const protocols = [format === 'json' ? 'nooble' : 'nooble.msgpack'];
    const plain = await node.chat('acme', 's1', { protocols });
    const asking = await node.chat('acme', 's1', { protocols, query: { reasoning: '1' } });
    const taskId = plain.say('Well?');
    const end = await asking.ended(taskId);
    await plain.ended(taskId);
    assert.equal(thoughts(asking.of(taskId)), 'Let me see.');
    assert.equal(deltas(asking.of(taskId)), 'Yes.');
    assert.deepEqual(
      Object.keys(asking.of(taskId).find(({ type }) => type === 'chat.reasoning') ?? {}).sort(),
      [...['data', 'task_id', 'ts', 'type']],
    );
    assert.ok(!types(plain.frames).includes('chat.reasoning'));
    for (const client of [plain, asking]) client.check();
    assert.equal(end.data.content, 'Yes.');
    const record = (await node.ask(`/api/chat/tasks/${taskId}`)).body;
    assert.deepEqual([record.reasoning, record.result.content], ['Let me see.', 'Yes.']);

    node.stub.next(say('Plainly.'));
    const next = await asking.turn('And?');
    assert.ok(!types(next).includes('chat.reasoning'));
    const { body } = await node.ask(`/api/chat/tasks/${last(next, 'chat.response').task_id}`);
    assert.ok(!('reasoning' in body), 'where there is none it is absent');
    const asked = JSON.stringify((await node.stub.request(1)).body);
    assert.ok(asked.includes('Yes.') && !asked.includes('Let me see.'), 'it is no part of the conversation');
  });

test('reasoning is in a stream of events where query or body ask for it, and otherwise not', async (t) => {
  const node = await startScene(t);
  const stream = async (query: string, more: object) => {
    node.stub.next(raw(THINKS));
    const body = { message: 'Well?', ...more };
    const headers = { accept: 'text/event-stream' };
    return (await node.ask(`/api/chat/send${query}`, { body, headers })).text;
  };
  for (const text of [await stream('?reasoning=1', {}), await stream('', { reasoning: true })]) {
    assert.match(text, /^event: chat\.reasoning\ndata: \{"type":"chat\.reasoning","ts"/m);
    assert.ok(text.indexOf('chat.reasoning') < text.indexOf('chat.delta'));
  }
  for (const text of [await stream('', {}), await stream('?reasoning=0', { reasoning: true })])
    assert.doesNotMatch(text, /chat\.reasoning|Let me/);
});

test('who asks for reasoning in another way is told which field it is', async (t) => {
  const node = await startScene(t);
  for (const [query, more] of [
    ['?reasoning=maybe', {}],
    ['?reasoning=1&reasoning=0', {}],
    ['', { reasoning: 'yes' }],
  ] as const) {
    const { status, body } = await node.ask(`/api/chat/send${query}`, { body: { message: 'Hi', ...more } });
    assert.deepEqual([status, body.error.code], [400, 'INVALID_REQUEST']);
    assert.match(body.error.message, /reasoning/);
  }
});

test('reasoning of a turn that is stopped or fails is stored; much of it is cut', async (t) => {
  const node = await startScene(t);
  node.stub.next(raw([thinks('I was'), line(choice({ content: 'Half of' }))], { end: 'reset' }));
  const client = await node.chat('acme', 's1', { query: { reasoning: '1' } });
  const failed = last(await client.turn('Well?'), 'error');
  assert.equal((await node.ask(`/api/chat/tasks/${failed.task_id}`)).body.reasoning, 'I was');

  const paragraph = thinks('x'.repeat(20_000));
  node.stub.next(raw([paragraph, paragraph, paragraph, paragraph], { end: 'hang' }));
  const taskId = client.say('And?');
  await client.see(() => thoughts(client.of(taskId)).length === 80_000);
  client.send({ type: 'chat.cancel', task_id: taskId });
  await client.ended(taskId);
  const { status, reasoning } = (await node.ask(`/api/chat/tasks/${taskId}`)).body;
  assert.deepEqual([status, reasoning.length], ['cancelled', 65_536]);
});

const breaksOff = raw(line(choice({ content: 'Half of' })), { end: 'reset' });

for (const format of ['json', 'msgpack'] as const)
  test(`${format}: a turn that fails keeps the text so far: shown everywhere, and given to no model`, async (t) => {
    const node = await startScene(t);
    node.stub.next(breaksOff, say('All of it.'));
    const protocols = [format === 'json' ? 'nooble' : 'nooble.msgpack'];
    const client = await node.chat('acme', 's1', { protocols });
    const failed = last(await client.turn('First?'), 'error');
    assert.deepEqual([failed.data.code, failed.data.retryable], ['MODEL_ERROR', true]);
    assert.doesNotMatch(JSON.stringify(failed), /Half of/, 'an error quotes nothing');
    const record = (await node.ask(`/api/chat/tasks/${failed.task_id}`)).body;
    assert.deepEqual([record.status, record.partial, 'result' in record], ['failed', 'Half of', false]);
    assert.ok(!('partial' in record.error));

    const answered = last(await client.turn('Second?'), 'chat.response');
    const said = (await node.stub.request(1)).body.messages.map(({ content }) => content);
    assert.ok(!JSON.stringify(said).includes('Half of'), JSON.stringify(said));
    const { messages } = (await node.ask('/api/sessions/s1/messages')).body;
    assert.deepEqual(
      messages.map(({ role, content, task_id, partial }: Record<string, unknown>) => [
        role,
        content,
        task_id,
        partial,
      ]),
      [
        ['user', 'First?', failed.task_id, undefined],
        ['assistant', 'Half of', failed.task_id, true],
        ['user', 'Second?', answered.task_id, undefined],
        ['assistant', 'All of it.', answered.task_id, undefined],
      ],
    );
    const late = await node.chat('acme', 's1', { protocols, query: { last_seq: '1', epoch: 'another' } });
    const snapshot = await late.see('session.snapshot');
    assert.deepEqual(
      snapshot.data.messages.map(({ content, partial }: Record<string, unknown>) => [content, partial]),
      [
        ['First?', undefined],
        ['Half of', true],
        ['Second?', undefined],
        ['All of it.', undefined],
      ],
    );
  });

test('the text so far outlasts the node, and still reaches no model', async (t) => {
  const url = `sqlite:${temporary(t).path('partial.db')}`;
  const env = { DATABASE_URL: url };
  await life(t, 'a turn fails', { env }, async (node) => {
    node.stub.next(breaksOff);
    last(await (await node.chat('acme', 's1')).turn('First?'), 'error');
  });
  await life(t, 'another life', { env }, async (node) => {
    last(await (await node.chat('acme', 's1')).turn('Second?'), 'chat.response');
    assert.doesNotMatch(JSON.stringify((await node.stub.request(0)).body), /Half of/);
    const { messages } = (await node.ask('/api/sessions/s1/messages')).body;
    assert.deepEqual(
      messages.map(({ content, partial }: Record<string, unknown>) => [content, partial]),
      [
        ['First?', undefined],
        ['Half of', true],
        ['Second?', undefined],
        ['Hello there.', undefined],
      ],
    );
  });
});

test('out of time and over budget, the text so far is kept; where nothing was written there is none', async (t) => {
  const node = await startScene(t);
  const run = { agent_id: 'default', input: 'Go.', wait: true };
  const execute = async (more: object = {}) =>
    (await node.ask('/api/executions', { body: { ...run, ...more } })).body;
  node.stub.next(stallAfter('Half of'));
  const late = await execute({ execution_params: { max_execution_time: 0.3 } });
  assert.deepEqual([late.status, late.partial], ['timeout', 'Half of']);
  node.stub.next(say('Dear.', { usage: 1_000_000 }));
  const dear = await execute();
  assert.deepEqual([dear.error.code, dear.partial], ['TIER_LIMIT', 'Dear.']);
  node.stub.next(refuse(400));
  const refused = await execute();
  assert.deepEqual([refused.status, 'partial' in refused], ['failed', false]);
});

const SCHEMA = { type: 'object', properties: { age: { type: 'integer' } }, required: ['age'] };
const FORMAT = { type: 'json_schema', json_schema: { name: 'person', schema: SCHEMA, strict: true } };

test('structured output: the model is asked for it on every wire, by agent or by request', async (t) => {
  const node = await startScene(t);
  node.stub.byDefault(() => say('{"age":7}'));
  const formatOf = async (index: number) => (await node.stub.request(index)).body.response_format;
  const client = await node.chat('acme', 's1', { protocols: ['nooble.msgpack'] });
  last(await client.turn('Socket?', { response_format: FORMAT }), 'chat.response');
  assert.deepEqual(await formatOf(0), FORMAT);
  last(await client.turn('And without?'), 'chat.response');
  assert.equal(await formatOf(1), undefined);
  const run = { agent_id: 'default', input: 'Go.', wait: true, response_format: { type: 'json_object' } };
  assert.equal((await node.ask('/api/executions', { body: run })).body.result.content, '{"age":7}');
  assert.deepEqual(await formatOf(2), { type: 'json_object' });

  const agent = { name: 'Former', provider: 'groq', model: 'llama-3.1-8b-instant', response_format: FORMAT };
  const made = await node.ask('/api/agents', { body: agent });
  assert.deepEqual([made.status, made.body.response_format], [201, FORMAT]);
  last(await client.turn('By agent?', { agent_id: made.body.id }), 'chat.response');
  assert.deepEqual(await formatOf(3), FORMAT);
  last(
    await client.turn('As text?', { agent_id: made.body.id, response_format: { type: 'text' } }),
    'chat.response',
  );
  assert.equal(await formatOf(4), undefined);
  const path = `/api/agents/${made.body.id}`;
  const { body } = await node.ask(path, { method: 'PATCH', body: { response_format: null } });
  assert.deepEqual([body.version, body.response_format], [2, null]);
  const same = await node.ask(path, { method: 'PATCH', body: { response_format: null } });
  assert.equal(same.body.version, 2, 'nothing has changed');
  last(await client.turn('No more?', { agent_id: made.body.id }), 'chat.response');
  assert.equal(await formatOf(5), undefined);
});

test('structured output: an answer that is not JSON is an error worth another try, with its text and its counts', async (t) => {
  const node = await startScene(t);
  node.stub.next(say('Sure! {"age":7}', { usage: 20 }), say('{"age":', { usage: 30, finish: 'length' }));
  const client = await node.chat('acme', 's1');
  for (const [text, tokens, message] of [
    ['Sure! {"age":7}', 20, /not the JSON/],
    ['{"age":', 30, /cut off/],
  ] as const) {
    const { task_id, data } = last(await client.turn('How old?', { response_format: FORMAT }), 'error');
    assert.deepEqual([data.code, data.retryable], ['MODEL_ERROR', true]);
    assert.match(data.message, message);
    const record = (await node.ask(`/api/chat/tasks/${task_id}`)).body;
    assert.deepEqual([record.partial, record.execution_info.tokens_used], [text, tokens]);
  }
});

test('structured output: an endpoint that does not know of it is asked without', async (t) => {
  const node = await startScene(t);
  node.stub.next(
    refuse(400, {}, { error: { message: "Unknown parameter: 'response_format'." } }),
    say('{"age":7}'),
  );
  const client = await node.chat('acme', 's1');
  const end = last(await client.turn('How old?', { response_format: FORMAT }), 'chat.response');
  assert.equal(end.data.content, '{"age":7}');
  assert.equal((await node.stub.request(1)).body.response_format, undefined);
});

test('structured output: a schema that is none is refused by its field, and no model hears of it', async (t) => {
  const node = await startScene(t);
  const response_format = { type: 'json_schema', json_schema: { name: 'x', schema: { type: 'person' } } };
  const field = /response_format\.json_schema\.schema/;
  const run = { agent_id: 'default', input: 'Go.', response_format };
  for (const [path, body] of [
    ['/api/chat/send', { message: 'Hi', response_format }],
    ['/api/executions', run],
    ['/api/executions/batch', { items: [run] }],
    ['/api/agents', { name: 'Wrong', response_format }],
  ] as const) {
    const { status, body: refused } = await node.ask(path, { body });
    assert.deepEqual([status, refused.error.code], [400, 'INVALID_REQUEST'], path);
    assert.match(refused.error.message, field);
  }
  const client = await node.chat('acme', 's1');
  const [error] = await client.turn('Hi', { response_format });
  assert.equal(error?.data.code, 'INVALID_REQUEST');
  assert.match(error?.data.message, field);
  assert.deepEqual(node.stub.requests, []);
});
