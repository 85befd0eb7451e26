/** Nodes that are killed or told to go while they work on actions: what was begun is answered once, by whomever. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { type ActionClient, action, ownList, pydantic1, pydantic2, WORK } from '../support/action-client.ts';
import { isEnd } from '../support/chatter.ts';
import type { ChildNode } from '../support/node.ts';
import { callTools, say, stallAfter } from '../support/stub-model.ts';
import { gate } from '../support/transport.ts';
import { until } from '../support/until.ts';
import { actionCluster, heldKeys, settled, TAKEOVER_MS } from './actions-cluster.ts';

const TOOLS = 'tool_registry_service:professional:default';

const pageSchema = z.object({ messages: z.array(z.object({ role: z.string(), content: z.string() })) });

async function messagesOf(node: ChildNode, session: string): Promise<readonly string[]> {
  const { body } = await node.ask(`/api/sessions/${session}/messages`);
  return pageSchema.parse(body).messages.map(({ role, content }) => `${role}: ${content}`);
}

/** An agent that has a tool of the registry. Returns its id. */
async function agentWithTool(node: ChildNode): Promise<string> {
  const fields = { name: 'Clerk', slug: 'clerk', tools: ['stamp'], system_prompt: 'You stamp.' };
  const { status, body, text } = await node.ask('/api/agents', { body: fields });
  assert.equal(status, 201, text);
  return body.id;
}

const run = (data: object, more: object): string =>
  pydantic1(action('execution.agent_run', { ...data }, { ...more }));

/** Nothing more than this comes to a list once every action is settled. */
async function nothingMore(client: ActionClient, list: string): Promise<void> {
  await settled(client, WORK);
  assert.equal(await client.redis.client.llen(list), 0, `more came to ${list}`);
}

test('kill -9 in mid-stream: runs go anew and are answered once, unless a client was told, or a tool was called', {
  timeout: 90_000,
}, async (t) => {
  const { client, stub, node } = await actionCluster(t);
  const registry = { TOOL_REGISTRY_SERVICE: 'redis' };
  const first = await node(registry);
  const agentId = await agentWithTool(first);
  const lists = { plain: ownList(), watched: ownList(), tool: ownList(), batch: ownList() };
  stub.byDefault(({ body }) => {
    const asked = body.messages.at(-1)?.content;
    if (asked === 'Stamp it.') return callTools([{ name: 'stamp', args: '{"page":1}' }]);
    return asked === 'Quick?' ? say('Quickly.') : stallAfter('The answer is ');
  });
  const watcher = await first.chat('acme', 's-watched');
  await client.push(
    WORK,
    run({ input: 'What?', session_id: 's-plain' }, { callback_queue: lists.plain, task_id: 'plain-1' }),
    run({ input: 'What?', session_id: 's-watched' }, { callback_queue: lists.watched, task_id: 'watched-1' }),
    run(
      { input: 'Stamp it.', session_id: 's-tool', agent_id: agentId },
      { callback_queue: lists.tool, task_id: 'tool-1' },
    ),
    pydantic2(
      action(
        'execution.batch',
        { items: [{ input: 'Quick?' }, { input: 'Slow?' }] },
        { callback_queue: lists.batch, task_id: 'batch-1' },
      ),
    ),
  );
  // The registry has the call and never answers; the other models are in mid-stream.
  const called = await client.reply(TOOLS);
  assert.deepEqual(
    [called.action_type, called.data.tool, called.task_id],
    ['tool.execute', 'stamp', 'tool-1'],
  );
  await watcher.see('execution.started');
  await until('all are with the model', () => stub.requests.length === 5);
  const quick = await client.reply(lists.batch);
  assert.deepEqual([quick.data.index, quick.data.response], [0, 'Quickly.']);
  await first.kill('SIGKILL');

  const open = gate();
  stub.byDefault(() => async (reply) => {
    await open.opened;
    await say('The answer is 42.')(reply);
  });
  const second = await node(registry);
  // Whoever comes back before the dead node's lease is over is told that it was cut off; then it is.
  const back = await second.chat('acme', 's-watched');
  const told = await back.ended('watched-1');
  assert.deepEqual([told.type, told.data.code], ['error', 'INTERRUPTED']);
  // Whoever comes while it runs again sees its answer.
  const anew = () => stub.requests.slice(5).map(({ body }) => body.messages.at(-1)?.content);
  await until('both go anew', () => ['What?', 'Slow?'].every((asked) => anew().includes(asked)), TAKEOVER_MS);
  const late = await second.chat('acme', 's-plain');
  open.open();
  assert.equal((await late.ended('plain-1')).data.content, 'The answer is 42.');

  const answered = await client.reply(lists.plain);
  assert.deepEqual(
    [answered.action_type, answered.task_id, answered.data.response],
    ['execution.callback', 'plain-1', 'The answer is 42.'],
  );
  for (const [list, taskId] of [
    [lists.watched, 'watched-1'],
    [lists.tool, 'tool-1'],
  ] as const) {
    const refused = await client.reply(list);
    assert.deepEqual(
      [refused.action_type, refused.task_id, refused.data.error_code],
      ['execution.error', taskId, 'INTERRUPTED'],
    );
  }
  // What was answered before may be answered once more, alike.
  const batch = [await client.reply(lists.batch)];
  while (batch.at(-1)?.action_type !== 'execution.batch_completed')
    batch.push(await client.reply(lists.batch));
  for (const item of batch.filter(({ data }) => data.index === 0)) assert.deepEqual(item, quick);
  const slow = batch.filter(({ data }) => data.index === 1);
  assert.deepEqual(
    slow.map(({ data }) => data.response),
    ['The answer is 42.'],
  );
  assert.deepEqual([batch.at(-1)?.data.completed, batch.at(-1)?.data.failed], [2, 0]);
  await settled(client, WORK);
  for (const list of Object.values(lists)) assert.equal(await client.redis.client.llen(list), 0, list);
  assert.deepEqual(anew().toSorted(), ['Slow?', 'What?'], 'a run that was over was begun again');
  assert.equal(await client.redis.client.llen(TOOLS), 0, 'the tool was called twice');
  assert.deepEqual(await messagesOf(second, 's-plain'), ['user: What?', 'assistant: The answer is 42.']);
  assert.deepEqual(await messagesOf(second, 's-watched'), ['user: What?']);
  for (const [socket, taskId] of [
    [late, 'plain-1'],
    [back, 'watched-1'],
  ] as const) {
    socket.send({ type: 'ping' });
    await socket.see('pong');
    assert.equal(socket.of(taskId).filter(isEnd).length, 1);
    socket.check();
  }
});

test('SIGTERM: what runs is answered within the grace, what waits stays for another node, and nothing is held', async (t) => {
  const { client, stub, node } = await actionCluster(t);
  const list = ownList();
  const open = gate();
  stub.byDefault(() => async (reply) => {
    reply.delta({ role: 'assistant', content: 'Slow' });
    await open.opened;
    await say('ly.')(reply);
  });
  const first = await node({ NODE_MAX_EXECUTIONS: '2' });
  const bodies = Array.from({ length: 6 }, (_, n) =>
    pydantic2(
      action('execution.agent_run', { input: `Run ${n}.` }, { callback_queue: list, task_id: `run-${n}` }),
    ),
  );
  await client.push(WORK, ...bodies);
  await until('two run', () => stub.requests.length === 2);
  first.kill('SIGTERM');
  await first.line('draining');
  open.open();
  assert.equal((await first.exit).code, 0);
  const early = await client.redis.client.lrange(list, 0, -1);
  assert.equal(early.length, 2);
  assert.equal(await client.redis.client.llen(WORK), 4);
  assert.deepEqual(await heldKeys(client), []);

  const second = await node({ NODE_MAX_EXECUTIONS: '2' });
  const replies = await client.replies(list, 6);
  assert.deepEqual(
    replies.map(({ task_id, data }) => [task_id, data.response]).toSorted(),
    bodies.map((_, n) => [`run-${n}`, 'Slowly.']),
  );
  assert.equal(stub.requests.length, 6);
  assert.equal((await second.kill('SIGTERM')).code, 0);
  assert.deepEqual(await heldKeys(client), []);
  assert.equal(await client.redis.client.llen(WORK), 0);
});

test('SIGTERM with a run that outlasts the grace: it goes back to its queue, and the next node runs it again', async (t) => {
  const { client, stub, node } = await actionCluster(t);
  const list = ownList();
  stub.next(stallAfter('Hm'));
  const first = await node({ DRAIN_SECONDS: '0.2' });
  await client.push(
    WORK,
    run({ input: 'Go.', session_id: 's1' }, { callback_queue: list, task_id: 'run-1' }),
  );
  await stub.request(0);
  assert.equal((await first.kill('SIGTERM')).code, 0);
  assert.deepEqual(await heldKeys(client), []);
  assert.equal(await client.redis.client.llen(list), 0);
  assert.equal(await client.redis.client.llen(WORK), 1);

  stub.next(say('Gone.'));
  await node({});
  const reply = await client.reply(list);
  assert.deepEqual([reply.task_id, reply.data.status, reply.data.response], ['run-1', 'success', 'Gone.']);
  await nothingMore(client, list);
});
