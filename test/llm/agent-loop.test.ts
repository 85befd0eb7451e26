/** What both agent types do over a real HTTP model: text, tools, limits. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { estimateTokens } from '../../src/domain/conversation.ts';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import { defineTool } from '../../src/llm/tools/tool.ts';
import { callTools, refuse, type StubMessage, say } from '../support/stub-model.ts';
import { answerOf, deltasOf, errorOf, startBench, typesOf, userMessage } from './harness.ts';

const sum = { name: 'calculator', args: '{"expression":"17 * 23"}' };
const now = { name: 'current_time', args: '{}' };
const toolText = (messages: readonly StubMessage[] | undefined): string =>
  messages?.findLast((message) => message.role === 'tool')?.content?.toString() ?? '';

for (const type of ['conversational', 'langchain'] as const) {
  test(`${type}: streamed text comes as deltas that make up the answer, with the provider's usage`, async () => {
    await using bench = await startBench();
    bench.stub.next(say('A streamed answer, in pieces.', { chunks: 7, usage: 321 }));
    const run = bench.start({ type });
    const outcome = await run.done;

    assert.equal(answerOf(outcome), 'A streamed answer, in pieces.');
    assert.equal(deltasOf(run.events), 'A streamed answer, in pieces.');
    assert.deepEqual(run.events[0], {
      type: 'execution.started',
      data: { agent_id: 'default', agent_version: 3, model: 'gpt-test-mini' },
    });
    assert.equal(typesOf(run.events).filter((name) => name === 'chat.delta').length, 7);
    assert.equal(outcome.info.tokens_used, 321);
    assert.equal(outcome.info.iterations, 1);
    assert.equal(outcome.info.model, 'gpt-test-mini');
    assert.deepEqual(outcome.info.tools_used, []);
    assert.ok(Number.isInteger(outcome.info.time_to_first_token_ms));
    assert.ok(Number.isInteger(outcome.info.execution_time_ms));
  });

  test(`${type}: the model is given the prompt, the history, the tools and the token limit`, async () => {
    await using bench = await startBench();
    const history = [
      userMessage('one'),
      { ...userMessage('two'), role: 'assistant' as const },
      userMessage('three'),
    ];
    const agent = { systemPrompt: 'For {{tenant_id}} and {{who}}.', maxTokens: 300 };
    await bench.start({ type, history, agent, context: { who: 'Ada' } }).done;

    const { body, headers } = await bench.stub.request(0);
    assert.deepEqual(
      body.messages.map(({ role, content }) => [role, content]),
      [
        ['system', 'For acme and Ada.'],
        ['user', 'one'],
        ['assistant', 'two'],
        ['user', 'three'],
      ],
    );
    assert.deepEqual(
      body.tools?.map((tool) => tool.function.name),
      ['calculator', 'current_time'],
    );
    assert.equal(body.max_tokens, 300);
    assert.equal(body.temperature, 0.2);
    assert.equal(headers.authorization, 'Bearer sk-canary-key');
  });

  test(`${type}: a tool call split over chunks is put together, run and answered`, async () => {
    await using bench = await startBench();
    bench.stub.next(
      callTools([{ ...sum, id: 'c1' }], { pieces: 9, usage: 30 }),
      say('It is 391.', { usage: 40 }),
    );
    const run = bench.start({ type });
    const outcome = await run.done;

    assert.equal(answerOf(outcome), 'It is 391.');
    assert.deepEqual(
      run.events.flatMap((event) => (event.type === 'tool.started' ? [event.data] : [])),
      [{ call_id: 'c1', tool: 'calculator', args: { expression: '17 * 23' } }],
    );
    const finished = run.events.find((event) => event.type === 'tool.finished');
    assert.equal(finished?.type === 'tool.finished' && finished.data.ok && finished.data.result, '391');
    assert.deepEqual(outcome.info.tools_used, ['calculator']);
    assert.equal(outcome.info.iterations, 2);
    assert.equal(outcome.info.tokens_used, 70);
    const { input_tokens, output_tokens, finish_reason } = outcome.info;
    assert.deepEqual([input_tokens, output_tokens, finish_reason], [35, 35, 'stop']);
    const second = bench.stub.requests[1]?.body.messages ?? [];
    assert.equal(toolText(second), '391');
    assert.equal(second.at(-1)?.tool_call_id, 'c1');
    assert.equal(second.at(-2)?.tool_calls?.[0]?.function.arguments, '{"expression":"17 * 23"}');
    assert.deepEqual(bench.used, ['calculator true']);
  });

  test(`${type}: tools asked for in one message run at the same time`, async () => {
    let running = 0;
    let most = 0;
    let release: () => void = () => {};
    const both = new Promise<void>((resolve) => {
      release = resolve;
    });
    const meet = defineTool({
      name: 'meet',
      description: 'Waits for another.',
      schema: z.object({ id: z.number() }),
      async run({ id }) {
        running += 1;
        most = Math.max(most, running);
        if (running === 2) release();
        await both;
        running -= 1;
        return `met ${id}`;
      },
    });
    await using bench = await startBench({ tools: [meet] });
    bench.stub.next(
      callTools([
        { name: 'meet', args: '{"id":1}' },
        { name: 'meet', args: '{"id":2}' },
      ]),
      say('Both met.'),
    );
    const outcome = await bench.start({ type, limits: { tools: ['meet'] } }).done;

    assert.equal(answerOf(outcome), 'Both met.');
    assert.equal(most, 2);
    const results = bench.stub.requests[1]?.body.messages.filter((message) => message.role === 'tool');
    assert.deepEqual(
      results?.map((message) => message.content),
      ['met 1', 'met 2'],
    );
    assert.deepEqual(outcome.info.tools_used, ['meet']);
  });

  test(`${type}: bad JSON, a wrong argument and an unknown tool go back to the model, twice a run`, async () => {
    await using bench = await startBench();
    bench.stub.next(
      callTools([{ name: 'calculator', args: '{"expression": 1' }]),
      callTools([{ name: 'calculator', args: '{"formula":"1+1"}' }]),
      say('I give up.'),
    );
    const run = bench.start({ type });
    assert.equal(answerOf(await run.done), 'I give up.');
    assert.match(toolText(bench.stub.requests[1]?.body.messages), /not a JSON object/);
    assert.match(toolText(bench.stub.requests[2]?.body.messages), /expression/);
    assert.ok(!typesOf(run.events).includes('tool.started'));

    bench.stub.byDefault(({ index }) => callTools([{ name: `nowhere_${index}`, args: '{}' }]));
    const lost = await bench.start({ type }).done;
    assert.equal(errorOf(lost).code, 'TOOL_LOOP');
    assert.equal(lost.info.iterations, 3);
    assert.match(
      toolText(bench.stub.requests[4]?.body.messages),
      /nowhere_3|no tool of that name|not a valid tool/,
    );
  });

  test(`${type}: a tool that exists but is not allowed ends the run as TOOL_DENIED`, async () => {
    await using bench = await startBench();
    bench.stub.next(callTools([sum]));
    const run = bench.start({ type, limits: { tools: ['current_time'] } });
    const error = errorOf(await run.done);
    assert.equal(error.code, 'TOOL_DENIED');
    assert.deepEqual(error.details, { tool: 'calculator' });
    assert.ok(!typesOf(run.events).includes('tool.started'));
  });

  test(`${type}: what a tool throws is fed back and marked as failed`, async () => {
    await using bench = await startBench();
    bench.stub.next(
      callTools([{ name: 'current_time', args: '{"timezone":"Mars/Base"}' }]),
      say('No such zone.'),
    );
    const run = bench.start({ type });
    assert.equal(answerOf(await run.done), 'No such zone.');
    const finished = run.events.find((event) => event.type === 'tool.finished');
    assert.equal(finished?.type === 'tool.finished' && finished.data.ok, false);
    assert.match(toolText(bench.stub.requests[1]?.body.messages), /^Error: Unknown time zone/);
    assert.deepEqual(bench.used, ['current_time false']);
  });

  test(`${type}: the same call a third time in a row is TOOL_LOOP`, async () => {
    await using bench = await startBench();
    bench.stub.byDefault(() => callTools([now], { usage: 10 }));
    const outcome = await bench.start({ type }).done;
    assert.equal(errorOf(outcome).code, 'TOOL_LOOP');
    assert.equal(outcome.info.iterations, 3);
    assert.deepEqual(bench.used, ['current_time true', 'current_time true']);
  });

  test(`${type}: an endless loop of different calls ends as MAX_ITERATIONS, without a call in vain`, async () => {
    await using bench = await startBench();
    bench.stub.byDefault(({ index }) =>
      callTools([{ name: 'current_time', args: `{"timezone":"Etc/GMT+${index}"}` }], { usage: 10 }),
    );
    const outcome = await bench.start({ type, limits: { maxIterations: 4 } }).done;
    assert.equal(errorOf(outcome).code, 'MAX_ITERATIONS');
    assert.equal(outcome.info.iterations, 4);
    assert.equal(bench.stub.requests.length, 4);
    assert.equal(bench.used.length, 3);
  });

  test(`${type}: more tokens than the run may use is TIER_LIMIT with the numbers`, async () => {
    await using bench = await startBench();
    bench.stub.next(callTools([now], { usage: 600 }), say('Too much.', { usage: 500 }));
    const outcome = await bench.start({ type }).done;
    assert.equal(errorOf(outcome).code, 'TIER_LIMIT');
    assert.deepEqual(errorOf(outcome).details, { limit: 'tokens_per_run', max: 1_000, used: 1_100 });
    assert.equal(outcome.info.tokens_used, 1_100);
  });

  test(`${type}: without usage from the provider tokens are counted`, async () => {
    await using bench = await startBench();
    bench.stub.next(say('Uncounted.', { usage: null }));
    const outcome = await bench.start({ type, message: 'How many?' }).done;
    const expected = estimateTokens('Be brief.') + estimateTokens('How many?') + estimateTokens('Uncounted.');
    assert.equal(outcome.info.tokens_used, expected);
    assert.deepEqual(['input_tokens' in outcome.info, outcome.info.finish_reason], [false, 'stop']);
  });

  test(`${type}: the first tool waits until the turn is stored, the model does not`, async () => {
    await using bench = await startBench();
    let store: () => void = () => {};
    const accepted = new Promise<void>((resolve) => {
      store = resolve;
    });
    bench.stub.next(callTools([now], { text: 'Let me see. ' }), say('Noon.'));
    const run = bench.start({ type, accepted });
    await run.seen('chat.delta');
    assert.ok(!typesOf(run.events).includes('tool.started'));
    store();
    assert.equal(answerOf(await run.done), 'Noon.');
    assert.equal(deltasOf(run.events), 'Let me see. Noon.');
  });

  test(`${type}: a turn that could not be stored runs no tool and says why`, async () => {
    await using bench = await startBench();
    bench.stub.byDefault(() => callTools([now]));
    const accepted = Promise.reject(new Error('disk full'));
    accepted.catch(() => {});
    const run = bench.start({ type, accepted });
    assert.equal(errorOf(await run.done).code, 'STORE_UNAVAILABLE');
    const fenced = Promise.reject(new RefusalError(refusal('CONFLICT')));
    fenced.catch(() => {});
    assert.equal(errorOf(await bench.start({ type, accepted: fenced }).done).code, 'CONFLICT');
    assert.deepEqual(bench.used, []);
  });

  test(`${type}: neither errors nor logs hold keys or message texts`, async () => {
    await using bench = await startBench();
    for (const status of [400, 401, 404]) {
      bench.stub.next(refuse(status));
      const run = bench.start({ type });
      const error = errorOf(await run.done);
      assert.equal(error.code, 'MODEL_ERROR');
      assert.deepEqual(error.details, { status });
      assert.doesNotMatch(JSON.stringify([error, run.events, bench.lines]), /canary/);
    }
  });
}

test('Groq answers at its own address, with usage and tools', async () => {
  await using bench = await startBench();
  bench.stub.next(callTools([{ ...sum, id: 'g1' }], { usage: 20 }), say('391, says Groq.', { usage: 35 }));
  const agent = { provider: 'groq', model: 'llama-test-8b' } as const;
  const run = bench.start({ agent });
  const outcome = await run.done;
  assert.equal(answerOf(outcome), '391, says Groq.');
  assert.equal(outcome.info.tokens_used, 55);
  assert.equal(outcome.info.model, 'llama-test-8b');
  const { path, headers, body } = await bench.stub.request(0);
  assert.equal(path, '/openai/v1/chat/completions');
  assert.equal(headers.authorization, 'Bearer gsk-canary-key');
  assert.equal(body.max_completion_tokens, undefined);
  assert.deepEqual(
    body.tools?.map((tool) => tool.function.name),
    ['calculator', 'current_time'],
  );
});

test('a model that ignores its token limit is cut off, and its connection closed', async () => {
  await using bench = await startBench();
  bench.stub.next(async (reply) => {
    while (!reply.signal.aborted) {
      reply.delta({ role: 'assistant', content: 'x'.repeat(1_000) });
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
  const error = errorOf(await bench.start().done);
  assert.equal(error.code, 'TIER_LIMIT');
  await bench.stub.closedByClient(0);
});
