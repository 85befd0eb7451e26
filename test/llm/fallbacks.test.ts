/** Models that stand in for an agent's own, and endpoints that are left alone while they are down. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cutAfter, hangUp, refuse, say, silence } from '../support/stub-model.ts';
import { answerOf, errorOf, startBench } from './harness.ts';

const agent = { fallbacks: [{ provider: 'groq', model: 'llama-test-8b' }] } as const;
const asked = (bench: Awaited<ReturnType<typeof startBench>>) =>
  bench.stub.requests.map(({ body }) => body.model);

for (const type of ['conversational', 'langchain'] as const) {
  test(`${type}: what is away, limited or has no quota is stood in for at once`, async () => {
    for (const scenario of [refuse(429), refuse(503), hangUp()]) {
      await using bench = await startBench();
      bench.stub.next(scenario, say('I stand in.'));
      assert.equal(answerOf(await bench.start({ type, agent }).done), 'I stand in.');
      assert.deepEqual(asked(bench), ['gpt-test-mini', 'llama-test-8b']);
      assert.equal(bench.retried.length, 1);
    }
  });

  test(`${type}: a model that does not begin is given up for the next`, async () => {
    await using bench = await startBench({ firstTokenTimeoutMs: 1_000 });
    bench.stub.next(silence(), say('I stand in.'));
    assert.equal(answerOf(await bench.start({ type, agent }).done), 'I stand in.');
    await bench.stub.closedByClient(0);
    assert.match(bench.lines.join('\n'), /"reason":"silent"/);
  });

  test(`${type}: once text is shown, and for a request that is wrong, nobody stands in`, async () => {
    for (const scenario of [cutAfter('Half'), refuse(400)]) {
      await using bench = await startBench();
      bench.stub.next(scenario, say('I stand in.'));
      assert.equal(errorOf(await bench.start({ type, agent }).done).code, 'MODEL_ERROR');
      assert.equal(bench.stub.requests.length, 1);
    }
  });

  test(`${type}: when all have failed they are asked once more, and then it is over`, async () => {
    await using bench = await startBench();
    bench.stub.byDefault(() => refuse(500, { 'retry-after-ms': '1' }));
    assert.equal(errorOf(await bench.start({ type, agent }).done).code, 'MODEL_UNAVAILABLE');
    assert.deepEqual(asked(bench), ['gpt-test-mini', 'llama-test-8b', 'gpt-test-mini', 'llama-test-8b']);
  });
}

test('an endpoint that fails again and again is not asked for a while; others are', async () => {
  await using bench = await startBench({ breakerFailures: 3 });
  bench.stub.byDefault(() => refuse(500, { 'retry-after-ms': '1' }));
  assert.equal(errorOf(await bench.start().done).code, 'MODEL_UNAVAILABLE');
  assert.equal(bench.stub.requests.length, 3);
  bench.stub.byDefault(() => say('Back again.'));
  const error = errorOf(await bench.start().done);
  assert.deepEqual([error.code, error.retryable, error.retry_after_ms], ['MODEL_UNAVAILABLE', true, 5_000]);
  assert.equal(bench.stub.requests.length, 3, 'it was asked while its circuit was open');
  assert.equal(answerOf(await bench.start({ agent }).done), 'Back again.');
  assert.equal(bench.stub.requests.at(-1)?.body.model, 'llama-test-8b');
});

test('an endpoint that takes requests and never answers is not asked for a while either', async () => {
  await using bench = await startBench({ breakerFailures: 2, firstTokenTimeoutMs: 60 });
  bench.stub.byDefault(silence);
  for (let turn = 0; turn < 2; turn += 1)
    assert.equal(errorOf(await bench.start().done).code, 'MODEL_UNAVAILABLE');
  const { code, retry_after_ms } = errorOf(await bench.start().done);
  assert.deepEqual([code, retry_after_ms], ['MODEL_UNAVAILABLE', 5_000]);
  assert.equal(bench.stub.requests.length, 2, 'it was asked while its circuit was open');
});
