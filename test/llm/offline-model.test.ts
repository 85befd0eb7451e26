/** The models that need no network, through our runner, through LangChain's own stream, and through createAgent. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AIMessageChunk, HumanMessage } from '@langchain/core/messages';
import { createAgent } from 'langchain';
import { findExpression, OfflineModel } from '../../src/llm/offline-model.ts';
import { answerOf, deltasOf, errorOf, startBench } from './harness.ts';

const offline = (model: string) => ({ agent: { provider: 'offline', model } }) as const;

for (const type of ['conversational', 'langchain'] as const) {
  test(`${type}: offline-echo answers from the message and is named as such`, async () => {
    await using bench = await startBench();
    const run = bench.start({ type, ...offline('offline-echo'), message: 'Hello  there,\nworld ' });
    const outcome = await run.done;
    assert.equal(answerOf(outcome), 'You said: Hello  there,\nworld ');
    assert.equal(deltasOf(run.events), answerOf(outcome));
    assert.equal(outcome.info.model, 'offline-echo');
    assert.ok(outcome.info.tokens_used > 0);
  });

  test(`${type}: offline-echo works arithmetic out with the calculator`, async () => {
    await using bench = await startBench();
    const run = bench.start({ type, ...offline('offline-echo'), message: 'What is 17 * 23, please?' });
    const outcome = await run.done;
    assert.equal(answerOf(outcome), '17 * 23 = 391');
    assert.deepEqual(outcome.info.tools_used, ['calculator']);
    assert.equal(outcome.info.iterations, 2);
  });
}

test('without the calculator offline-echo does not reckon; with the clock it tells the time', async () => {
  await using bench = await startBench();
  const limits = { tools: ['current_time'] };
  const sum = bench.start({ ...offline('offline-echo'), message: 'What is 17 * 23?', limits });
  assert.equal(answerOf(await sum.done), 'You said: What is 17 * 23?');
  const time = bench.start({
    ...offline('offline-echo'),
    message: 'What time is it in Europe/Madrid?',
    limits,
  });
  assert.match(answerOf(await time.done), /^It is \d{4}-.*Europe\/Madrid/);
});

test('sums are found in words and among other text; dates are none', () => {
  const cases: readonly [string, string | undefined][] = [
    ['What is 2+2?', '2+2'],
    ['Work out sqrt(16) * (3 - 1).', 'sqrt(16) * (3 - 1)'],
    ['12 times 12', '12 * 12'],
    ['7 plus 5 divided by 2 and more', '7 + 5 / 2'],
    ['3 x 4', '3 * 4'],
    ['Meet me on 2026-03-04 at 10', undefined],
    ['I have 3 cats (and 2 dogs)', undefined],
    ['', undefined],
  ];
  for (const [text, expected] of cases) assert.equal(findExpression(text), expected, text);
});

test('offline-<n>x<ms> gives n tokens, ms apart', async () => {
  await using bench = await startBench();
  const run = bench.start(offline('offline-50x0'));
  const outcome = await run.done;
  assert.equal(run.events.filter((event) => event.type === 'chat.delta').length, 50);
  assert.ok(answerOf(outcome).startsWith('tok1 tok2 ') && answerOf(outcome).endsWith('tok50 '));

  const slow = await bench.start(offline('offline-4x20')).done;
  assert.equal(answerOf(slow), 'tok1 tok2 tok3 tok4 ');
  assert.ok(slow.info.execution_time_ms >= 60);
});

test('with no delay the whole answer comes within one loop turn; with xtick each token has its own', async () => {
  await using bench = await startBench();
  let turns = 0;
  let counting = true;
  const count = (): void => {
    turns += 1;
    if (counting) setImmediate(count);
  };
  setImmediate(count);
  const at: number[] = [];
  await bench.start({ ...offline('offline-20x0'), onEvent: () => at.push(turns) }).done;
  assert.equal(new Set(at).size, 1);
  at.length = 0;
  await bench.start({ ...offline('offline-20xtick'), onEvent: () => at.push(turns) }).done;
  assert.ok(new Set(at).size >= 20);
  counting = false;
});

test('the token limit cuts an offline answer too', async () => {
  await using bench = await startBench();
  const outcome = await bench.start({ agent: { ...offline('offline-50x0').agent, maxTokens: 10 } }).done;
  assert.equal(answerOf(outcome).trim().split(' ').length, 10);
});

test('an abort ends a paced offline answer at once and leaves no timer', async () => {
  await using bench = await startBench();
  for (const name of ['offline-1000x60000', 'offline-100000xtick', 'offline-1000x5']) {
    const run = bench.start(offline(name));
    await run.seen(name === 'offline-1000x60000' ? 'execution.started' : 'chat.delta');
    const startedAt = performance.now();
    run.abort();
    assert.equal((await run.done).type, 'aborted');
    assert.ok(performance.now() - startedAt < 50);
  }
});

test('an unknown offline model is MODEL_ERROR and says which there are', async () => {
  await using bench = await startBench();
  for (const name of ['offline-big', 'offline-5x', 'offline-999999x0', 'gpt-4']) {
    const error = errorOf(await bench.start(offline(name)).done);
    assert.equal(error.code, 'MODEL_ERROR');
    assert.match(error.message, /offline-echo/);
  }
});

test('it is a LangChain chat model: stream, invoke, and createAgent work', async () => {
  const model = new OfflineModel({ model: 'offline-5x0' });
  let whole = new AIMessageChunk('');
  for await (const chunk of await model.stream('hi')) whole = whole.concat(chunk);
  assert.equal(whole.content, 'tok1 tok2 tok3 tok4 tok5 ');
  assert.deepEqual(Object.entries(whole.usage_metadata ?? {}).slice(0, 3), [
    ['input_tokens', 1],
    ['output_tokens', 5],
    ['total_tokens', 6],
  ]);
  assert.equal((await model.invoke('hi')).content, whole.content);

  const agent = createAgent({ model, tools: [] });
  let text = '';
  for await (const [chunk] of await agent.stream(
    { messages: [new HumanMessage('hi')] },
    { streamMode: 'messages' },
  ))
    text += chunk.content;
  assert.equal(text, whole.content);
});
