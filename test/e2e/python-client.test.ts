/** The Python example's client, where a test plays the node, and client, node and peer together. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { type Scene, type SceneOptions, startScene } from '../support/node.ts';
import { type PythonPeer, parsed, pythonCluster, request, runClient, stopped } from '../support/python.ts';
import type { RedisServer } from '../support/redis.ts';
import { callTools, say } from '../support/stub-model.ts';
import { gate } from '../support/transport.ts';
import { until } from '../support/until.ts';

const WORK = 'execution_service:professional:default';

/** Takes the client's next action and answers it; `more` lies over a reply that copies its ids. */
async function play({ client }: RedisServer, ...answers: readonly object[]): Promise<DomainAction> {
  const action = parsed((await client.brpop(WORK, 20))?.[1]);
  const { task_id, correlation_id, tenant_id, callback_queue = '' } = action;
  for (const answer of answers) {
    const reply = { ...request('execution.callback', {}), task_id, correlation_id, tenant_id, ...answer };
    await client.lpush(callback_queue, JSON.stringify(reply));
  }
  return action;
}

const SUCCESS = { data: { status: 'success', response: 'Fine.' } };

test('the client prints the callback that is its own, and its exit code says how it went', async (t) => {
  const { redis } = await pythonCluster(t);
  const words = ['--tenant', 'globex', '--agent', 'support', '--session', 's9', 'How are you?'];
  const going = runClient(redis.url, words);
  const action = await play(
    redis,
    { ...SUCCESS, correlation_id: 'of-another' },
    { ...SUCCESS, tenant_id: 'acme' },
    SUCCESS,
  );
  assert.equal(action.action_type, 'execution.agent_run');
  assert.deepEqual(
    [action.tenant_id, action.tenant_tier, action.session_id, action.data],
    ['globex', 'professional', 's9', { agent_id: 'support', input: 'How are you?' }],
  );
  assert.match(action.callback_queue ?? '', /:responses:/);
  const done = await going;
  assert.deepEqual([done.code, done.replies.map(({ data }) => data)], [0, [SUCCESS.data]]);
  assert.equal(done.err, `task_id ${action.task_id}\n`);

  const failing = runClient(redis.url, ['Hi']);
  const ERROR = { action_type: 'execution.error', data: { error_code: 'AGENT_NOT_FOUND' } };
  await play(redis, ERROR);
  assert.deepEqual([(await failing).code, (await failing).replies[0]?.data], [1, ERROR.data]);

  const late = await runClient(redis.url, ['--wait', '0.2', 'Hi']);
  assert.deepEqual([late.code, late.replies], [1, []]);
  assert.match(late.err, /no callback within 0.2 s/);
  assert.equal((await runClient(redis.url, ['--tenant', 'a/b', 'Hi'])).code, 2);
  assert.equal((await runClient('redis://127.0.0.1:1', ['Hi'])).code, 1);
  await redis.client.del(WORK);
  assert.deepEqual(await redis.client.keys('*'), []);
});

test('the client sends a batch and waits for its end, and cancels a task', async (t) => {
  const { redis } = await pythonCluster(t);
  const going = runClient(redis.url, ['--batch', '-'], 'One?\n\n{"agent_id":"support","input":"Two?"}\n');
  const COMPLETED = { action_type: 'execution.batch_completed', data: { total: 2 } };
  const batch = await play(
    redis,
    { data: { ...SUCCESS.data, index: 0 } },
    { data: { ...SUCCESS.data, index: 1 } },
    COMPLETED,
  );
  assert.equal(batch.action_type, 'execution.batch');
  assert.deepEqual(batch.data.items, [
    { agent_id: 'guide', input: 'One?' },
    { agent_id: 'support', input: 'Two?' },
  ]);
  assert.deepEqual([(await going).code, (await going).replies.length], [0, 3]);

  const partly = runClient(redis.url, ['--batch', '-'], 'One?');
  await play(redis, { action_type: 'execution.error', data: { index: 0 } }, COMPLETED);
  assert.deepEqual([(await partly).code, (await partly).replies.length], [1, 2]);
  const refused = runClient(redis.url, ['--batch', '-'], 'One?');
  await play(redis, { action_type: 'execution.error' });
  assert.deepEqual([(await refused).code, (await refused).replies.length], [1, 1]);
  for (const bad of ['', '{"half":', '{\n']) {
    const { code, err } = await runClient(redis.url, ['--batch', '-', '--wait', '0.1'], bad);
    assert.equal(code, 1, err);
  }

  await redis.client.del(WORK);
  const cancelling = runClient(redis.url, ['--cancel', 'task-7']);
  const cancel = await play(redis, { data: { status: 'cancelled' } });
  assert.deepEqual([cancel.action_type, cancel.data], ['execution.cancel', { task_id: 'task-7' }]);
  assert.equal((await cancelling).code, 0);
});

// --- Client, node and peer together ------------------------------------------------------------------------------

/** A node that asks the peer for everything; the time it gives it outlasts a restart. */
const beside = ({ url }: RedisServer): SceneOptions => ({
  env: {
    REDIS_URL: url,
    PEER_TIMEOUT_SECONDS: '30',
    MANAGEMENT_SERVICE: 'redis',
    CONVERSATION_SERVICE: 'redis',
    EMBEDDING_SERVICE: 'redis',
    QUERY_SERVICE: 'redis',
    TOOL_REGISTRY_SERVICE: 'redis',
  },
});

const ADD = { name: 'add', args: '{"a":2,"b":3}' };
const LOOK_UP = { name: 'rag_query', args: '{"query":"can an anvil be returned"}' };

/** What the model was given with one request, as role and text. */
const given = async (node: Scene, index: number): Promise<readonly string[]> =>
  (await node.stub.request(index)).body.messages.map(({ role, content }) => `${role}: ${content}`);

const outcomes = (peer: PythonPeer, type: string): readonly string[] =>
  peer.actions().filter((each) => each.startsWith(type));

const savedAt = (peer: PythonPeer, count: number): Promise<void> =>
  until(`${count} messages at the peer`, () => outcomes(peer, 'conversation.save_message').length === count);

test('a node runs an agent that the peer configures, remembers and serves, and the client prints the callback', async (t) => {
  const { redis, peer } = await pythonCluster(t);
  const python = await peer();
  const node = await startScene(t, beside(redis));
  const run = (session: string, message: string) =>
    runClient(redis.url, ['--wait', '30', '--agent', 'support', '--session', session, message]);

  node.stub.next(callTools([LOOK_UP, ADD]), say('Within thirty days.'));
  const { code, replies, err } = await run('s1', 'Can an anvil be returned?');
  assert.equal(code, 0, err);
  assert.equal(replies[0]?.action_type, 'execution.callback');
  const { agent_id, session_id, status, response } = replies[0].data;
  assert.deepEqual(
    [agent_id, session_id, status, response],
    ['support', 's1', 'success', 'Within thirty days.'],
  );
  assert.match((await given(node, 0))[0] ?? '', /Acme's support/);
  const fed = (await given(node, 1)).filter((message) => message.startsWith('tool:'));
  assert.match(fed[0] ?? '', /returns\.md[\s\S]*thirty days/);
  assert.equal(fed[1], 'tool: 5');
  await savedAt(python, 2);
  for (const type of ['management.get_agent_config', 'conversation.get_history'])
    assert.deepEqual(outcomes(python, type), [`${type} ok`]);
  assert.deepEqual(
    [...outcomes(python, 'query'), ...outcomes(python, 'tool')],
    ['query.request ok', 'tool.execute ok'],
  );

  // What only the peer knows of a session reaches the model.
  const before = { session_id: 's2', role: 'user', content: 'My anvil is purple.' };
  await redis.client.lpush(
    'conversation_service:professional:default',
    JSON.stringify(request('conversation.save_message', before, { task_id: 'earlier' })),
  );
  await savedAt(python, 3);
  assert.equal((await run('s2', 'Which colour?')).code, 0);
  assert.ok((await given(node, 2)).some((message) => message.startsWith('user: My anvil is purple.')));

  const unknown = await runClient(redis.url, ['--tenant', 'globex', '--agent', 'guide', 'Hi']);
  assert.deepEqual([unknown.code, unknown.replies[0]?.data.error_code], [1, 'AGENT_NOT_FOUND']);
});

test('a peer that is killed in mid-action and started again has lost nothing of it', async (t) => {
  const { redis, peer } = await pythonCluster(t);
  let python = await peer();
  const node = await startScene(t, beside(redis));
  const list = 'tool_registry_service:professional:default';
  const isHeld = async () => (await redis.client.exists(`${list}:processing:peer`)) === 1;
  for (let round = 0, held = false; !held; round += 1) {
    const { opened, open } = gate();
    node.stub.next(async (reply) => {
      await opened;
      await callTools([ADD])(reply);
    }, say('Five.'));
    const going = runClient(redis.url, ['--wait', '40', '--agent', 'support', 'Add.']);
    // A run that is refused never comes to the model.
    await Promise.race([node.stub.request(2 * round), going.then(({ err }) => assert.fail(err))]);
    python.kill('SIGSTOP');
    open();
    await until(
      'the tool to be asked for',
      async () => (await isHeld()) || (await redis.client.exists(list)) === 1,
    );
    held = await isHeld();
    // Where it stood still between two waits, nothing was taken: once more.
    if (held) {
      await stopped(python);
      python = await peer();
    } else python.kill('SIGCONT');
    const { code, replies, err } = await going;
    assert.deepEqual([code, replies[0]?.data.response], [0, 'Five.'], err);
    assert.equal((await given(node, 2 * round + 1)).at(-1), 'tool: 5');
  }
});
