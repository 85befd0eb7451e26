/** What a run does when the model's endpoint misbehaves, and when it is called off. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { defineTool } from '../../src/llm/tools/tool.ts';
import {
  callTools,
  cutAfter,
  endAfter,
  hangUp,
  refuse,
  say,
  silence,
  stallAfter,
} from '../support/stub-model.ts';
import { answerOf, deltasOf, errorOf, startBench, typesOf } from './harness.ts';

for (const type of ['conversational', 'langchain'] as const) {
  test(`${type}: 429 with Retry-After is waited out, then answered`, async () => {
    await using bench = await startBench();
    bench.stub.next(
      refuse(429, { 'retry-after-ms': '30' }),
      refuse(429, { 'retry-after': '0' }),
      say('At last.'),
    );
    const startedAt = performance.now();
    const outcome = await bench.start({ type }).done;
    assert.equal(answerOf(outcome), 'At last.');
    assert.ok(performance.now() - startedAt >= 30);
    assert.equal(outcome.info.iterations, 1);
    assert.deepEqual(bench.retried, ['openai 429', 'openai 429']);
  });

  test(`${type}: the third 429 is MODEL_RATE_LIMITED and says when to come back`, async () => {
    await using bench = await startBench();
    bench.stub.byDefault(() => refuse(429, { 'retry-after-ms': '10' }));
    const error = errorOf(await bench.start({ type }).done);
    assert.equal(error.code, 'MODEL_RATE_LIMITED');
    assert.equal(error.retryable, true);
    assert.equal(error.retry_after_ms, 10);
    assert.equal(bench.stub.requests.length, 3);
  });

  test(`${type}: 500 and a dropped connection are retried, then MODEL_UNAVAILABLE`, async () => {
    await using bench = await startBench();
    bench.stub.next(refuse(500, { 'retry-after-ms': '1' }), refuse(503, { 'retry-after-ms': '1' }), hangUp());
    const error = errorOf(await bench.start({ type }).done);
    assert.equal(error.code, 'MODEL_UNAVAILABLE');
    assert.equal(error.retryable, true);
    assert.deepEqual(bench.retried, ['openai 500', 'openai 503']);
    bench.stub.next(hangUp(), say('Back again.'));
    assert.equal(answerOf(await bench.start({ type }).done), 'Back again.');
  });

  test(`${type}: 400 is MODEL_ERROR at once`, async () => {
    await using bench = await startBench();
    bench.stub.next(refuse(400));
    const outcome = await bench.start({ type }).done;
    const error = errorOf(outcome);
    assert.equal(error.code, 'MODEL_ERROR');
    assert.match(error.message, /HTTP 400/);
    assert.deepEqual(error.details, { status: 400 });
    assert.equal(bench.stub.requests.length, 1);
    assert.equal(outcome.info.time_to_first_token_ms, null);
  });

  test(`${type}: a stream cut in the middle is MODEL_ERROR, never retried`, async () => {
    await using bench = await startBench();
    bench.stub.next(cutAfter('Half an ans'));
    const run = bench.start({ type });
    const error = errorOf(await run.done);
    assert.deepEqual([error.code, error.retryable], ['MODEL_ERROR', true]);
    assert.match(error.message, /middle of its answer/);
    assert.equal(deltasOf(run.events), 'Half an ans');
    assert.equal(bench.stub.requests.length, 1);
    assert.deepEqual(bench.retried, []);
  });

  test(`${type}: [DONE] is an end, also without a finish`, async () => {
    await using bench = await startBench();
    bench.stub.next(endAfter('All of it.'));
    assert.equal(answerOf(await bench.start({ type }).done), 'All of it.');
  });

  test(`${type}: silence is MODEL_UNAVAILABLE after the first-token timeout, and hangs up`, async () => {
    await using bench = await startBench({ firstTokenTimeoutMs: 60 });
    bench.stub.next(silence());
    const error = errorOf(await bench.start({ type }).done);
    assert.equal(error.code, 'MODEL_UNAVAILABLE');
    assert.equal(error.retryable, true);
    await bench.stub.closedByClient(0);
  });

  test(`${type}: a stall between tokens is MODEL_ERROR after the idle timeout, and hangs up`, async () => {
    await using bench = await startBench({ idleTimeoutMs: 60 });
    bench.stub.next(stallAfter('Well, '));
    const run = bench.start({ type });
    assert.equal(errorOf(await run.done).code, 'MODEL_ERROR');
    assert.equal(deltasOf(run.events), 'Well, ');
    await bench.stub.closedByClient(0);
  });

  test(`${type}: slow tokens outlast the idle timeout; the time limit ends them`, async () => {
    await using bench = await startBench({ idleTimeoutMs: 200, firstTokenTimeoutMs: 200 });
    bench.stub.next(say('x'.repeat(200), { chunks: 200, everyMs: 10 }));
    const outcome = await bench.start({ type, limits: { timeoutMs: 500 } }).done;
    const error = errorOf(outcome);
    assert.equal(error.code, 'EXECUTION_TIMEOUT');
    const details = z
      .object({ max_execution_time: z.number(), actual_execution_time: z.number() })
      .parse(error.details);
    assert.equal(details.max_execution_time, 0.5);
    assert.ok(details.actual_execution_time >= 0.5 && details.actual_execution_time < 5);
    assert.ok((outcome.info.time_to_first_token_ms ?? 9_999) < 500);
    assert.ok(outcome.info.tokens_used > 0);
    await bench.stub.closedByClient(0);
  });

  test(`${type}: an abort in mid-stream closes the model's connection and ends the run as aborted`, async () => {
    await using bench = await startBench();
    bench.stub.next(stallAfter('Once upon '));
    const run = bench.start({ type });
    await run.seen('chat.delta');
    const count = run.events.length;
    run.abort();
    const outcome = await run.done;
    assert.equal(outcome.type, 'aborted');
    assert.equal(outcome.info.iterations, 1);
    assert.ok(outcome.info.tokens_used > 0);
    await bench.stub.closedByClient(0);
    assert.equal(run.events.length, count);
    assert.deepEqual(bench.lines, []);
  });

  test(`${type}: an abort before the first token, and before the start`, async () => {
    await using bench = await startBench();
    bench.stub.next(silence());
    const run = bench.start({ type });
    await bench.stub.request(0);
    run.abort();
    assert.equal((await run.done).type, 'aborted');
    await bench.stub.closedByClient(0);

    const late = bench.start({
      type,
      effects: () => assert.fail('nothing may be stored'),
      onEvent: () => assert.fail('nothing may be told'),
    });
    late.abort();
    assert.equal((await late.done).type, 'aborted');
    assert.equal(bench.stub.requests.length, 1);
  });

  test(`${type}: an abort while a tool runs reaches the tool`, async () => {
    let calledOff: () => void = () => {};
    const heard = new Promise<void>((resolve) => {
      calledOff = resolve;
    });
    const slow = defineTool({
      name: 'slow',
      description: 'Never ends by itself.',
      schema: z.object({}),
      run: (_args, { signal }) =>
        new Promise((_, reject) => {
          signal.addEventListener('abort', () => {
            calledOff();
            reject(new Error('called off'));
          });
        }),
    });
    await using bench = await startBench({ tools: [slow] });
    bench.stub.next(callTools([{ name: 'slow', args: '{}' }]));
    const run = bench.start({ type, limits: { tools: ['slow'] } });
    await run.seen('tool.started');
    run.abort();
    assert.equal((await run.done).type, 'aborted');
    await heard;
    assert.ok(!typesOf(run.events).includes('tool.finished'));
  });

  test(`${type}: the time limit also ends a tool that does not listen`, async () => {
    const deaf = defineTool({
      name: 'deaf',
      description: 'Ignores its signal.',
      schema: z.object({}),
      run: () => new Promise(() => {}),
    });
    await using bench = await startBench({ tools: [deaf] });
    bench.stub.next(callTools([{ name: 'deaf', args: '{}' }]));
    const run = bench.start({ type, limits: { tools: ['deaf'], timeoutMs: 300 } });
    assert.equal(errorOf(await run.done).code, 'EXECUTION_TIMEOUT');
  });
}

test('an abort while a retry is waited for ends the wait', async () => {
  await using bench = await startBench();
  bench.stub.next(refuse(429, { 'retry-after': '5' }));
  const run = bench.start();
  await bench.stub.request(0);
  while (bench.lines.length === 0) await new Promise((resolve) => setImmediate(resolve));
  run.abort();
  assert.equal((await run.done).type, 'aborted');
  assert.equal(bench.stub.requests.length, 1);
});

test('a Retry-After beyond the time limit is not waited for', async () => {
  await using bench = await startBench();
  bench.stub.next(refuse(429, { 'retry-after': '60' }));
  const error = errorOf(await bench.start().done);
  assert.equal(error.code, 'MODEL_RATE_LIMITED');
  assert.equal(error.retry_after_ms, 60_000);
  assert.equal(bench.stub.requests.length, 1);
});

test('a spent quota is not retried', async () => {
  await using bench = await startBench();
  bench.stub.next(refuse(429, {}, { error: { message: 'canary-message', code: 'insufficient_quota' } }));
  const error = errorOf(await bench.start().done);
  assert.equal(error.code, 'MODEL_RATE_LIMITED');
  assert.deepEqual(error.details, { status: 429, provider_code: 'insufficient_quota' });
  assert.equal(bench.stub.requests.length, 1);
});

test('Groq: failures carry the same codes, and an abort hangs up', async () => {
  await using bench = await startBench();
  const agent = { provider: 'groq', model: 'llama-test-8b' } as const;
  bench.stub.next(refuse(429, { 'retry-after-ms': '1' }), hangUp(), refuse(500));
  assert.equal(errorOf(await bench.start({ agent }).done).code, 'MODEL_UNAVAILABLE');
  assert.deepEqual(bench.retried, ['groq 429', 'groq connection']);
  bench.stub.next(cutAfter('Half'));
  assert.equal(errorOf(await bench.start({ agent }).done).code, 'MODEL_ERROR');
  bench.stub.next(stallAfter('Once '));
  const run = bench.start({ agent });
  await run.seen('chat.delta');
  run.abort();
  assert.equal((await run.done).type, 'aborted');
  await bench.stub.closedByClient(4);
});
