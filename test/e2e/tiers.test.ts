/** What a tier allows, as clients meet it on the wire. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { last } from '../support/chatter.ts';
import { OFFLINE, startScene, startTestNode } from '../support/node.ts';
import { callTools, say, stallAfter } from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';

const FREE = { query: { tier: 'free' } };

test('a free tenant has ten requests a minute, on whatever wire they come', async (t) => {
  const { chat, ask } = await startTestNode(t);
  const client = await chat('acme', 's1', FREE);
  for (let turns = 0; turns < 8; turns += 1) last(await client.turn('Go.'), 'chat.response');
  for (let turns = 0; turns < 2; turns += 1)
    assert.equal((await ask('/api/chat/send', { tier: 'free', body: { message: 'Go.' } })).status, 202);

  const task = client.say('The eleventh.');
  const refused = await client.ended(task);
  assert.deepEqual(
    [refused.data.code, refused.data.retryable, refused.seq],
    ['RATE_LIMITED', true, undefined],
  );
  assert.ok(refused.data.retry_after_ms > 0 && refused.data.retry_after_ms <= 60_000);
  const http = await ask('/api/chat/send', { tier: 'free', body: { message: 'The twelfth.' } });
  assert.deepEqual([http.status, http.body.error.code], [429, 'RATE_LIMITED']);
  assert.ok(Number(http.headers.get('retry-after')) >= 1);

  const other = await chat('globex', 's1', FREE);
  last(await other.turn('I am someone else.'), 'chat.response');
  const status = await ask(`/api/chat/tasks/${task}`);
  assert.equal(status.status, 404, 'a refused turn was kept');
});

test('requests per session are counted for each session by itself', async (t) => {
  const { chat } = await startTestNode(t, { env: { ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '2' } });
  const [one, two] = [await chat('acme', 's1'), await chat('acme', 's2')];
  await one.turn('1');
  await one.turn('2');
  const refused = await one.ended(one.say('3'));
  assert.equal(refused.data.code, 'RATE_LIMITED');
  assert.ok(refused.data.retry_after_ms > 60_000);
  last(await two.turn('1'), 'chat.response');
});

test('a refused turn is not counted', async (t) => {
  const { stub, chat } = await startScene(t, { env: { ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '2' } });
  const client = await chat('acme', 's1');
  for (let tries = 0; tries < 3; tries += 1) {
    const refused = await client.ended(client.say('No.', { agent_id: 'nobody' }));
    assert.equal(refused.data.code, 'AGENT_NOT_FOUND');
  }
  for (let turns = 0; turns < 2; turns += 1) last(await client.turn('Yes.'), 'chat.response');
  assert.equal(stub.requests.length, 2);
});

test("sockets beyond the tier's are told why and closed with 4429", async (t) => {
  const { chat, ask } = await startTestNode(t);
  const open = [];
  for (let sockets = 0; sockets < 20; sockets += 1) open.push(await chat('acme', `s${sockets}`, FREE));
  await assert.rejects(chat('acme', 's20', FREE), /4429/);
  await chat('globex', 's1', FREE);
  await open[0]?.close();
  while ((await ask('/ws/stats')).body.sockets > 20);
  await chat('acme', 's21', FREE);
});

test('two turns of a free tenant run at once; the third is queued and runs when there is room', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(stallAfter('One '), stallAfter('Two '), say('Three.'));
  const clients = [];
  for (const session of ['s1', 's2', 's3']) clients.push(await chat('acme', session, FREE));
  const [one, two, three] = clients;
  assert.ok(one && two && three);
  const [first, second] = [one.say('1'), two.say('2')];
  await Promise.all([one.see('chat.delta'), two.see('chat.delta')]);
  const third = three.say('3');
  const accepted = await three.see('chat.accepted');
  assert.deepEqual(accepted.data, { status: 'queued', position: 2 });
  assert.equal(stub.requests.length, 2);

  one.send({ type: 'chat.cancel', task_id: first });
  assert.equal((await three.ended(third)).data.content, 'Three.');
  two.send({ type: 'chat.cancel', task_id: second });
  await Promise.all([one.ended(first), two.ended(second)]);
});

test('when enough turns wait, the next one is refused with OVERLOADED', async (t) => {
  const tiers = temporary(t).write('tiers.json', JSON.stringify({ free: { executions: 1, waiting: 2 } }));
  const { stub, chat } = await startScene(t, { env: { TIERS_FILE: tiers, DEFAULT_TIER: 'free' } });
  stub.next(stallAfter('One '));
  const client = await chat('acme', 's1');
  const first = client.say('1');
  await client.see('chat.delta');
  const waiting = [];
  for (const session of ['s2', 's3']) {
    const other = await chat('acme', session);
    const task = other.say('2');
    await other.see('chat.accepted');
    waiting.push(other.ended(task));
  }
  const refused = await client.ended(client.say('4'));
  assert.deepEqual([refused.data.code, refused.data.retryable], ['OVERLOADED', true]);
  assert.ok(refused.data.retry_after_ms > 0);
  client.send({ type: 'chat.cancel', task_id: first });
  for (const end of await Promise.all(waiting)) assert.equal(end.type, 'chat.response');
});

test('the calculator is not for the free tier: not offered, and denied', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(callTools([{ name: 'calculator', args: '{"expression":"1 + 1"}' }]));
  const client = await chat('acme', 's1', FREE);
  const frames = await client.turn('Add.');

  assert.equal(last(frames, 'error').data.code, 'TOOL_DENIED');
  const tools = (await stub.request(0)).body.tools?.map((tool) => tool.function.name);
  assert.deepEqual(tools, ['current_time']);
});

test('a free tenant gets three iterations', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.byDefault(({ index }) =>
    callTools([{ name: 'current_time', args: `{"timezone":"Etc/GMT-${index}"}` }]),
  );
  const end = last(await (await chat('acme', 's1', FREE)).turn('Time?'), 'error');
  assert.deepEqual([end.data.code, end.data.details], ['MAX_ITERATIONS', { max_iterations: 3 }]);
});

test('a large model is not for the free tier', async (t) => {
  const { chat, ask, stub } = await startScene(t, { env: { DEFAULT_MODEL: 'gpt-4.1' } });
  const client = await chat('acme', 's1', FREE);
  const refused = await client.ended(client.say('Go.'));
  assert.deepEqual([refused.data.code, refused.data.details.value], ['TIER_LIMIT', 'gpt-4.1']);
  const http = await ask('/api/chat/send', { tier: 'free', body: { message: 'Go.' } });
  assert.deepEqual([http.status, http.body.error.code], [422, 'TIER_LIMIT']);
  assert.equal(stub.requests.length, 0);
  const paying = await chat('globex', 's1', { query: { tier: 'advance' } });
  last(await paying.turn('Go.'), 'chat.response');
});

test('a run that uses more tokens than its tier allows ends with TIER_LIMIT', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(say('Much.', { usage: 4_001 }));
  const end = last(await (await chat('acme', 's1', FREE)).turn('Go.'), 'error');
  assert.deepEqual([end.data.code, end.data.details.limit], ['TIER_LIMIT', 'tokens_per_run']);
});

test('the model is given as much history as the tier allows', async (t) => {
  const tiers = temporary(t).write('tiers.json', JSON.stringify({ free: { history_messages: 3 } }));
  const { stub, chat } = await startScene(t, { env: { TIERS_FILE: tiers } });
  const client = await chat('acme', 's1', FREE);
  for (const message of ['1', '2', '3']) await client.turn(message);
  const told = (await stub.request(2)).body.messages.map(({ content }) => content);
  assert.deepEqual(told.slice(1), ['2', 'Hello there.', '3']);
});

test('an unknown tier is refused', async (t) => {
  const { chat, ask } = await startTestNode(t);
  const http = await ask('/api/chat/send', { tier: 'platinum', body: { message: 'Go.' } });
  assert.deepEqual([http.status, http.body.error.code], [400, 'INVALID_REQUEST']);
  await assert.rejects(chat('acme', 's1', { query: { tier: 'platinum' } }), /4400/);
});

test("the operator's caps lie under the tier's limits", async (t) => {
  const { stub, chat } = await startScene(t, { env: { EXECUTION_MAX_ITERATIONS: '2' } });
  stub.byDefault(({ index }) => callTools([{ name: 'calculator', args: `{"expression":"${index}"}` }]));
  const end = last(await (await chat('acme', 's1')).turn('Go.'), 'error');
  assert.deepEqual(end.data.details, { max_iterations: 2 });
});

test('a daily quota that is used up is QUOTA_EXCEEDED', async (t) => {
  const tiers = temporary(t).write('tiers.json', JSON.stringify({ free: { requests_per_day: 1 } }));
  const { chat } = await startTestNode(t, { env: { ...OFFLINE, TIERS_FILE: tiers, DEFAULT_TIER: 'free' } });
  const client = await chat('acme', 's1');
  await client.turn('1');
  const refused = await client.ended(client.say('2'));
  assert.equal(refused.data.code, 'QUOTA_EXCEEDED');
  assert.ok(refused.data.retry_after_ms > 0 && refused.data.retry_after_ms <= 86_400_000);
});
