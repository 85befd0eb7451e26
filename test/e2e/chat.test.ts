/** One chat message after another: over a real socket, through the whole node, to a real model endpoint and back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deltas, last, numbered, types } from '../support/chatter.ts';
import { startScene } from '../support/node.ts';
import { callTools, cutAfter, refuse, say, stallAfter } from '../support/stub-model.ts';

test('text is streamed: accepted, started, deltas, response, numbered from one', async (t) => {
  const { stub, chat } = await startScene(t);
  const text = 'Words come one after another, and together they are the answer.';
  stub.next(say(text, { chunks: 9, usage: 77, everyMs: 3 }));
  const client = await chat('acme', 's1');
  const frames = await client.turn('Say something.');

  assert.deepEqual(types(frames).slice(0, 2), ['chat.accepted', 'execution.started']);
  assert.deepEqual(
    frames.map(({ seq }) => seq),
    frames.map((_, place) => place + 1),
  );
  const { data } = last(frames, 'chat.response');
  assert.equal(data.content, text);
  assert.equal(data.role, 'assistant');
  assert.equal(deltas(frames), text);
  assert.ok(types(frames).filter((type) => type === 'chat.delta').length > 1);
  const info = data.execution_info;
  assert.equal(info.tokens_used, 77);
  assert.equal(info.iterations, 1);
  assert.equal(info.model, 'gpt-4.1-mini');
  assert.deepEqual(info.tools_used, []);
  assert.ok(info.time_to_first_token_ms <= info.execution_time_ms);
  assert.deepEqual(frames[0]?.data, { status: 'processing', position: 0 });
  assert.deepEqual(frames[1]?.data, { agent_id: 'default', agent_version: 1, model: 'gpt-4.1-mini' });
});

test('the model is given the conversation so far, and the numbers go on', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(say('Pleased to meet you.'), say('Ada.'));
  const client = await chat('acme', 's1');
  await client.turn('My name is Ada.');
  await client.turn('What is my name?');

  const [system, ...rest] = (await stub.request(1)).body.messages;
  assert.equal(system?.role, 'system');
  assert.deepEqual(
    rest.map(({ role, content }) => ({ role, content })),
    [
      { role: 'user', content: 'My name is Ada.' },
      { role: 'assistant', content: 'Pleased to meet you.' },
      { role: 'user', content: 'What is my name?' },
    ],
  );
  assert.equal(numbered(client.frames).at(0)?.seq, 1);
});

test('without streaming the answer comes whole', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(say('All at once.', { chunks: 4 }));
  const frames = await (await chat('acme', 's1')).turn('Go.', { stream: false });

  assert.deepEqual(types(frames), ['chat.accepted', 'execution.started', 'chat.response']);
  assert.equal(last(frames, 'chat.response').data.content, 'All at once.');
});

test('a tool call in many pieces is put together and carried out', async (t) => {
  const { stub, chat } = await startScene(t);
  const args = '{"expression":"17 * 23"}';
  stub.next(
    callTools([{ name: 'calculator', args, id: 'c1' }], { pieces: 12, usage: 30 }),
    say('It is 391.'),
  );
  const frames = await (await chat('acme', 's1')).turn('What is 17 * 23?');

  const started = frames.find(({ type }) => type === 'tool.started');
  assert.deepEqual(started?.data, {
    call_id: 'c1',
    tool: 'calculator',
    args: { expression: '17 * 23' },
  });
  const finished = frames.find(({ type }) => type === 'tool.finished');
  assert.equal(finished?.data.ok, true);
  assert.equal(finished?.data.result, '391');
  const { data } = last(frames, 'chat.response');
  assert.equal(data.content, 'It is 391.');
  assert.equal(data.execution_info.tokens_used, 72);
  assert.equal(data.execution_info.iterations, 2);
  assert.deepEqual(data.execution_info.tools_used, ['calculator']);
  const told = (await stub.request(1)).body.messages.at(-1);
  assert.deepEqual([told?.role, told?.tool_call_id, told?.content], ['tool', 'c1', '391']);
});

test('calls that the model asks for together all run, and are answered together', async (t) => {
  const { stub, chat } = await startScene(t);
  const calls = [
    { name: 'calculator', args: '{"expression":"2 + 2"}', id: 'a' },
    { name: 'current_time', args: '{"timezone":"UTC"}', id: 'b' },
    { name: 'calculator', args: '{"expression":"3 * 3"}', id: 'c' },
  ];
  stub.next(callTools(calls, { pieces: 5 }), say('Four, and nine.'));
  const frames = await (await chat('acme', 's1')).turn('Two sums and the time.');

  const finished = frames.filter(({ type }) => type === 'tool.finished');
  assert.deepEqual(finished.map(({ data }) => data.call_id).sort(), ['a', 'b', 'c']);
  assert.ok(finished.every(({ data }) => data.ok));
  const order = types(frames);
  assert.ok(
    order.lastIndexOf('tool.started') < order.indexOf('tool.finished'),
    'they did not run in parallel',
  );
  const told = (await stub.request(1)).body.messages.filter(({ role }) => role === 'tool');
  assert.deepEqual(told.map(({ tool_call_id }) => tool_call_id).sort(), ['a', 'b', 'c']);
  assert.equal(last(frames, 'chat.response').data.content, 'Four, and nine.');
});

test('bad arguments and unknown tools are fed back to the model, which may mend them', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(
    callTools([{ name: 'calculator', args: '{"expression": 1 +' }]),
    callTools([{ name: 'crystal_ball', args: '{}' }]),
    callTools([{ name: 'calculator', args: '{"expression":"1 + 1"}' }]),
    say('Two.'),
  );
  const frames = await (await chat('acme', 's1')).turn('What is 1 + 1?');

  assert.equal(last(frames, 'chat.response').data.content, 'Two.');
  assert.match(String((await stub.request(1)).body.messages.at(-1)?.content), /not a JSON object/);
  assert.match(String((await stub.request(2)).body.messages.at(-1)?.content), /no tool of that name/);
  assert.equal(types(frames).filter((type) => type === 'tool.started').length, 1);
});

test('a third mistake in a row ends the turn with TOOL_LOOP', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.byDefault(() => callTools([{ name: 'crystal_ball', args: '{}' }]));
  const frames = await (await chat('acme', 's1')).turn('Look.');

  assert.equal(last(frames, 'error').data.code, 'TOOL_LOOP');
  assert.equal(stub.requests.length, 3);
});

test('an endless tool loop ends: the same call with TOOL_LOOP, ever new ones with MAX_ITERATIONS', async (t) => {
  const { stub, chat } = await startScene(t);
  const client = await chat('acme', 's1');
  stub.byDefault(() => callTools([{ name: 'calculator', args: '{"expression":"1"}' }]));
  assert.equal(last(await client.turn('Same.'), 'error').data.code, 'TOOL_LOOP');

  stub.byDefault(({ index }) => callTools([{ name: 'calculator', args: `{"expression":"${index}"}` }]));
  const from = stub.requests.length;
  const end = last(await client.turn('New.'), 'error');
  assert.equal(end.data.code, 'MAX_ITERATIONS');
  assert.deepEqual(end.data.details, { max_iterations: 10 });
  assert.equal(stub.requests.length - from, 10);
});

test('a 429 with Retry-After is waited out before the first token', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(refuse(429, { 'retry-after-ms': '60' }), say('Now.'));
  const frames = await (await chat('acme', 's1')).turn('Go.');

  const { data } = last(frames, 'chat.response');
  assert.equal(data.content, 'Now.');
  assert.ok(data.execution_info.time_to_first_token_ms >= 60);
  assert.equal(types(frames).filter((type) => type === 'execution.started').length, 1);
});

test('errors of the endpoint end the turn with their codes, and the session goes on', async (t) => {
  const { stub, chat } = await startScene(t);
  const client = await chat('acme', 's1');
  stub.next(...Array.from({ length: 3 }, () => refuse(500, { 'retry-after-ms': '5' })));
  const failed = last(await client.turn('One.'), 'error').data;
  assert.deepEqual([failed.code, failed.retryable], ['MODEL_UNAVAILABLE', true]);
  assert.equal(stub.requests.length, 3);

  stub.next(...Array.from({ length: 3 }, () => refuse(429, { 'retry-after-ms': '5' })));
  const limited = last(await client.turn('Two.'), 'error').data;
  assert.deepEqual([limited.code, limited.retry_after_ms], ['MODEL_RATE_LIMITED', 5]);

  stub.next(cutAfter('Half an ans'));
  const cut = await client.turn('Three.');
  assert.equal(last(cut, 'error').data.code, 'MODEL_ERROR');
  assert.equal(deltas(cut), 'Half an ans');

  stub.next(say('Fine again.'));
  assert.equal(last(await client.turn('Four.'), 'chat.response').data.content, 'Fine again.');
  assert.ok(!client.frames.some((frame) => JSON.stringify(frame).includes('canary')));
});

test('silence is not waited out for ever: neither before the first token nor in the middle', async (t) => {
  const { stub, chat } = await startScene(t, {
    env: { MODEL_FIRST_TOKEN_SECONDS: '0.3', MODEL_IDLE_SECONDS: '0.3' },
  });
  const client = await chat('acme', 's1');
  stub.next(stallAfter(''), stallAfter('Well, '));
  assert.equal(last(await client.turn('One.'), 'error').data.code, 'MODEL_UNAVAILABLE');
  await stub.closedByClient(0);

  const stalled = await client.turn('Two.');
  assert.equal(last(stalled, 'error').data.code, 'MODEL_ERROR');
  assert.equal(deltas(stalled), 'Well, ');
  await stub.closedByClient(1);
});

test('a turn that takes too long ends with EXECUTION_TIMEOUT', async (t) => {
  const { stub, chat, ask } = await startScene(t, { env: { EXECUTION_MAX_EXECUTION_TIME: '0.3' } });
  stub.next(stallAfter('I am thin'));
  const client = await chat('acme', 's1');
  const frames = await client.turn('Think.');

  assert.equal(last(frames, 'error').data.code, 'EXECUTION_TIMEOUT');
  await stub.closedByClient(0);
  const status = await ask(`/api/chat/tasks/${frames[0]?.task_id}`);
  assert.equal(status.body.status, 'timeout');
});

test('the same protocol answers where createAgent runs the agent', async (t) => {
  const { stub, chat } = await startScene(t, { env: { EXECUTION_DEFAULT_AGENT_TYPE: 'langchain' } });
  stub.next(
    callTools([{ name: 'calculator', args: '{"expression":"6 * 7"}' }], { usage: 10 }),
    say('It is 42.', { usage: 20 }),
    stallAfter('For ever and '),
  );
  const client = await chat('acme', 's1');
  const frames = await client.turn('What is 6 * 7?');
  assert.deepEqual(types(frames).slice(0, 2), ['chat.accepted', 'execution.started']);
  assert.ok(types(frames).includes('tool.finished'));
  const { data } = last(frames, 'chat.response');
  assert.equal(data.content, 'It is 42.');
  assert.equal(data.execution_info.tokens_used, 30);

  const task = client.say('Go on.');
  await client.see((frame) => frame.task_id === task && frame.type === 'chat.delta');
  client.send({ type: 'chat.cancel', task_id: task });
  assert.equal((await client.ended(task)).type, 'chat.cancelled');
  await stub.closedByClient(2);
});
