/** Batches of executions and their callbacks: how many run, what is offered again, what is forgotten, what is given up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refusal } from '../../../src/domain/errors.ts';
import { refused } from '../../support/http-client.ts';
import { openReceiver } from '../webhooks/webhook-receiver.ts';
import { openExecutions, RUN } from './execution-node.ts';

test('a batch runs as many at a time as it may, in order, and counts how they ended', async (t) => {
  const { post, batch, said, answer, script } = await openExecutions(t, { atOnce: async () => 2 });
  const items = ['a', 'b', 'c'].map((id) => ({ ...RUN, input: id, task_id: id }));
  const response = await post({ items, concurrency: 5 }, '/api/executions/batch');
  assert.equal(response.status, 202);
  const { batch_id, items: count } = JSON.parse(await response.text());
  assert.equal(count, 3);
  const first = await said(2);
  assert.deepEqual(
    script.said.map(({ taskId }) => taskId),
    ['a', 'b'],
  );
  const begun = await batch(batch_id);
  assert.deepEqual([begun.status, begun.total, begun.completed, begun.failed], ['processing', 3, 0, 0]);
  assert.deepEqual(begun.items[2], {
    execution_id: 'c',
    session_id: begun.items[2].session_id,
    status: 'queued',
  });

  answer(first, 'B');
  const third = await said(3);
  script.emit('acme', third.sessionId, 'c', 'error', refusal('MODEL_ERROR'));
  const [a] = script.said;
  assert.ok(a);
  answer(a, 'A');
  let ended = await batch(batch_id);
  while (ended.status !== 'completed') ended = await batch(batch_id);
  assert.deepEqual([ended.completed, ended.failed], [2, 1]);
  assert.deepEqual(
    ended.items.map((item: { status: string; result?: { content: string }; error?: { code: string } }) => [
      item.status,
      item.result?.content ?? item.error?.code,
    ]),
    [
      ['completed', 'A'],
      ['completed', 'B'],
      ['failed', 'MODEL_ERROR'],
    ],
  );
});

test('an item that a limit of the moment refuses is offered again when it said, but not for ever', async (t) => {
  const { post, batch, said, answer, script, time } = await openExecutions(t);
  script.refusal = refusal('RATE_LIMITED', { retryAfterMs: 6_000 });
  const started = await post({ items: [RUN] }, '/api/executions/batch');
  const { batch_id } = JSON.parse(await started.text());
  await said(1);
  await time.advance(5_000);
  assert.equal((await batch(batch_id)).items[0].status, 'queued');
  assert.equal(script.said.length, 1);
  script.refusal = undefined;
  await time.advance(2_000);
  const again = await said(2);
  assert.equal(again.taskIdGiven, true, 'an offer that was lost is found again');
  answer(again);
  while ((await batch(batch_id)).status !== 'completed');

  script.refusal = refusal('OVERLOADED');
  const lost = JSON.parse(await (await post({ items: [RUN] }, '/api/executions/batch')).text());
  while ((await batch(lost.batch_id)).status !== 'completed') await time.advance(1_250);
  assert.equal(script.said.length, 2 + 20);
  assert.equal((await batch(lost.batch_id)).items[0].error.code, 'OVERLOADED');

  script.refusal = refusal('QUOTA_EXCEEDED', { retryAfterMs: 1_000 });
  const spent = JSON.parse(await (await post({ items: [RUN] }, '/api/executions/batch')).text());
  while ((await batch(spent.batch_id)).status !== 'completed');
  assert.equal((await batch(spent.batch_id)).items[0].error.code, 'QUOTA_EXCEEDED');
});

test('batches are bounded: too many at once are refused, and the finished ones stay in the store', async (t) => {
  const { post, batch, said, answer } = await openExecutions(t, {
    batchBounds: { runningPerTenant: 2, keptPerTenant: 2 },
  });
  const start = async (): Promise<string> =>
    JSON.parse(await (await post({ items: [RUN] }, '/api/executions/batch')).text()).batch_id;
  const first = await start();
  const second = await start();
  await refused(await post({ items: [RUN] }, '/api/executions/batch'), 503, 'OVERLOADED');
  answer(await said(1));
  while ((await batch(first)).status !== 'completed');
  const third = await start();
  const stored = await batch(first);
  assert.deepEqual([stored.status, stored.items[0].result.content], ['completed', 'hello']);
  for (const id of [second, third]) assert.equal((await batch(id)).status, 'processing');
});

test('a closed node begins no item more, and leaves the batch as it is', async (t) => {
  const { post, said, script, executions, batch } = await openExecutions(t);
  const { batch_id } = JSON.parse(
    await (await post({ items: [RUN, RUN, RUN], concurrency: 1 }, '/api/executions/batch')).text(),
  );
  await said(1);
  await executions.close();
  const left = await batch(batch_id);
  assert.deepEqual([script.said.length, left.status, left.failed], [1, 'processing', 0]);
});

test('an item that its node refuses since it goes has not failed: it is said again, by whoever has the batch', async (t) => {
  const { post, said, answer, script, batch, time } = await openExecutions(t);
  script.refusal = refusal('DRAINING');
  const { batch_id } = JSON.parse(await (await post({ items: [RUN] }, '/api/executions/batch')).text());
  await said(1);
  await time.advance(1_000);
  assert.deepEqual((await batch(batch_id)).items[0].status, 'queued');
  script.refusal = undefined;
  await time.advance(5_000);
  const again = await said(2);
  assert.deepEqual([again.taskId, again.taskIdGiven, again.resumable], [script.said[0]?.taskId, true, true]);
  answer(again);
  while ((await batch(batch_id)).status !== 'completed');
});

test('a store that does not answer for the tier refuses the batch', async (t) => {
  const { post } = await openExecutions(t, { atOnce: () => Promise.reject(new Error('canary')) });
  await refused(await post({ items: [RUN] }, '/api/executions/batch'), 503, 'STORE_UNAVAILABLE');
});

test('a callback is tried five times, and a repeated request is told once', async (t) => {
  const receiver = await openReceiver(t, (response) => response.writeHead(500).end());
  const { post, said, answer, time, script, logged } = await openExecutions(t);
  const callback_url = `http://127.0.0.1:${receiver.port}/done`;
  await post({ ...RUN, task_id: 'e1', session_id: 's1', callback_url });
  const request = await said(1);
  await post({ ...RUN, task_id: 'e1', session_id: 's1', callback_url });
  const tried = () => logged('a callback will be tried again');
  let ended = tried();
  answer(request);
  for (let attempt = 1; attempt <= 5; attempt += 1) {
    await receiver.got(attempt);
    const [sent] = receiver.requests.slice(-1);
    assert.equal(sent?.headers['webhook-id'], 'e1');
    assert.equal(sent?.headers['webhook-signature'], undefined);
    const body = JSON.parse(sent?.body ?? '');
    assert.deepEqual([body.execution_id, body.status, body.result.content], ['e1', 'completed', 'hello']);
    await ended;
    ended = attempt < 4 ? tried() : logged('a callback was given up');
    await time.advance(120_000);
  }
  assert.equal(receiver.requests.length, 5);
  assert.equal(script.said.length, 2);
});

test('callbacks are bounded, and a refused execution gives its place back', async (t) => {
  const { post, script } = await openExecutions(t, {});
  const callback_url = 'https://hooks.test/';
  script.refusal = refusal('BUSY');
  await refused(await post({ ...RUN, callback_url }), 409, 'BUSY');
  script.refusal = undefined;
  for (let held = 0; held < 500; held += 1)
    assert.equal((await post({ ...RUN, session_id: 's1', callback_url })).status, 202);
  await refused(await post({ ...RUN, callback_url }), 503, 'OVERLOADED');
  assert.equal((await post(RUN)).status, 202);
});
