/** What turns hold while they wait is bounded in bytes, by tenant and in all, and given back with their ends. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isEnd } from '../support/chatter.ts';
import { startScene } from '../support/node.ts';
import { say, stallAfter } from '../support/stub-model.ts';

const ENV = { ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '0', DEFAULT_TIER: 'enterprise' };
/** 0.4 MB as it is counted: 64 MiB take about 165 of them. */
const context = { a: 'x'.repeat(200_000) };

test('turns beyond the bytes of a tenant are refused, another tenant goes on, and ends make room', async (t) => {
  const { chat, ask, stub } = await startScene(t, { env: ENV });
  stub.next(stallAfter('Half '));
  const client = await chat('acme', 's1');
  const first = client.say('Stay.');
  await client.see('chat.delta');
  const tasks = Array.from({ length: 200 }, () => client.say('Go.', { context }));
  const answers = await Promise.all(
    tasks.map((task) =>
      client.see((frame) => frame.task_id === task && (frame.type === 'chat.accepted' || isEnd(frame))),
    ),
  );
  const refused = answers.filter(isEnd);
  assert.ok(refused.length > 20 && refused.length < 60, `${refused.length} were refused`);
  for (const { data } of refused) assert.deepEqual([data.code, data.retryable], ['OVERLOADED', true]);
  const http = await ask('/api/chat/send', { body: { message: 'Go.', context } });
  assert.deepEqual([http.status, http.body.error.code], [503, 'OVERLOADED']);
  assert.equal(
    (await ask('/api/chat/send', { body: { message: 'Go.', context }, tenant: 'other' })).status,
    202,
  );

  assert.equal((await ask('/api/sessions/s1', { method: 'DELETE' })).status, 204);
  assert.ok(client.of(first).some(isEnd));
  const again = await ask('/api/chat/send', { body: { message: 'Go.', context } });
  assert.equal(again.status, 202);
});

test('a context arrives as it was sent, whatever is in it', async (t) => {
  const { ask, stub } = await startScene(t, { env: ENV });
  const { body: agent } = await ask('/api/agents', {
    body: { name: 'Guide', system_prompt: 'To {{who.name}}: {{list}} {{none}}{{zero}}' },
  });
  stub.byDefault(() => say('Yes.'));
  const sent = {
    who: { name: 'Zoë 世界 \ud83c' },
    list: [1, null, { '': [] }],
    none: null,
    zero: 0,
    __proto__x: 1,
  };
  const run = await ask('/api/executions', {
    body: { agent_id: agent.id, input: 'Go.', context: sent, wait: true },
  });
  assert.equal(run.status, 200, run.text);
  const told = await ask('/api/chat/send', {
    body: { message: 'Go.', agent_id: agent.id, context: { ...sent, list: Array(5_000).fill({}) } },
  });
  assert.equal(told.status, 202);
  assert.match(
    String((await stub.request(0)).body.messages[0]?.content),
    /^To Zoë 世界 .: \[1,null,\{"":\[\]\}\] 0/u,
  );
  assert.match(String((await stub.request(1)).body.messages[0]?.content), /^To Zoë.*: \[\{\},\{\}/u);
});

test('a prompt is filled in whole up to its limit; beyond, the turn is refused by name on every way in', async (t) => {
  const { ask, chat, stub } = await startScene(t, { env: ENV });
  const made = (system_prompt: string) => ask('/api/agents', { body: { name: 'Guide', system_prompt } });
  const whole = (await made('Read {{document}}')).body.id;
  const document = 'd'.repeat(4_516);
  const run = (agent_id: string, more: object) =>
    ask('/api/executions', { body: { agent_id, input: 'Go.', wait: true, context: more } });
  assert.equal((await run(whole, { document })).status, 200);
  assert.equal((await stub.request(0)).body.messages[0]?.content, `Read ${document}`);
  const refused = await run(whole, { document: 'd'.repeat(40_000) });
  assert.deepEqual([refused.status, refused.body.error.details.field], [400, 'context.document']);
  assert.match(refused.body.error.message, /context\.document .* 32000 characters/);

  const many = (await made('{{a}}'.repeat(6_400))).body.id;
  const client = await chat('acme', 's1', { query: { agent_id: many } });
  const end = await client.ended(client.say('Go.', { context: { a: 'x'.repeat(2_000) } }));
  assert.deepEqual([end.type, end.data.code], ['error', 'INVALID_REQUEST']);
  const http = await ask('/api/chat/send', {
    body: { message: 'Go.', agent_id: many, context: { a: 'x'.repeat(2_000) } },
  });
  assert.equal(http.status, 400);
  assert.equal(stub.requests.length, 1);
});

test('large whole numbers of a body over HTTP reach the prompt with all their digits', async (t) => {
  const { ask, stub, url } = await startScene(t, { env: ENV });
  const { body: agent } = await ask('/api/agents', {
    body: { name: 'Clerk', system_prompt: 'Order {{order}} of {{list}}' },
  });
  stub.byDefault(() => say('Yes.'));
  const response = await fetch(`${url}/api/executions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-tenant-id': 'acme' },
    body: `{"agent_id":"${agent.id}","input":"Go.","wait":true,"context":{"order":1234567890123456789,"list":[-9007199254740993]}}`,
  });
  assert.equal(response.status, 200, await response.text());
  const prompt = String(stub.requests[0]?.body.messages[0]?.content);
  assert.equal(prompt, 'Order 1234567890123456789 of [-9007199254740993]');
});
