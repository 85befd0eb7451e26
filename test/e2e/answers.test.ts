/** What an answer has beside its text, on every wire: counts and how it ended. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { last } from '../support/chatter.ts';
import { startScene } from '../support/node.ts';
import { callTools, choice, DONE, line, raw, type Scenario, say } from '../support/stub-model.ts';

const CALCULATES = callTools([{ name: 'calculator', args: '{"expression":"6*7"}' }], { usage: 20 });
/** A whole answer with these counts. */
const counted = (usage: unknown, finish = 'stop') =>
  raw(line(choice({ content: 'Hello.' })) + line({ ...choice({}, finish), usage }) + DONE);

for (const format of ['json', 'msgpack'] as const)
  test(`${format}: counts are sums over the calls of a run; the last of them says how it ended`, async (t) => {
    const node = await startScene(t);
    node.stub.next(CALCULATES, say('Forty-tw', { usage: 30, finish: 'length' }));
    const client = await node.chat('acme', 's1', {
      protocols: [format === 'json' ? 'nooble' : 'nooble.msgpack'],
    });
    const response = last(await client.turn('How much?'), 'chat.response');
    const { finish_reason, input_tokens, output_tokens, tokens_used } = response.data.execution_info;
    assert.deepEqual([finish_reason, input_tokens, output_tokens, tokens_used], ['length', 25, 25, 50]);
    const record = (await node.ask(`/api/chat/tasks/${response.task_id}`)).body;
    assert.deepEqual(record.execution_info, response.data.execution_info);
  });

test('counts that the provider does not give, or not for every call, are absent', async (t) => {
  const node = await startScene(t);
  const client = await node.chat('acme', 's1');
  const infoOf = async (...scenarios: readonly Scenario[]) => {
    node.stub.next(...scenarios);
    return last(await client.turn('Go on.'), 'chat.response').data.execution_info;
  };
  const half = await infoOf(counted({ prompt_tokens: 5, completion_tokens: -1, total_tokens: '12' }));
  assert.deepEqual([half.input_tokens, half.output_tokens, half.tokens_used], [5, undefined, 12]);
  for (const usage of [null, [], 'many', { prompt_tokens: 1.5, completion_tokens: {} }]) {
    const info = await infoOf(counted(usage, 'eos'));
    assert.deepEqual(
      [info.input_tokens, info.output_tokens, info.finish_reason],
      [undefined, undefined, 'stop'],
    );
    assert.ok(Number.isInteger(info.tokens_used) && info.tokens_used > 0);
  }
  const mixed = await infoOf(CALCULATES, say('42.', { usage: null }));
  assert.deepEqual([mixed.input_tokens, mixed.output_tokens], [undefined, undefined]);
});

test('a run that fails says what its calls came to, and of a call without an end nothing', async (t) => {
  const node = await startScene(t);
  node.stub.next(CALCULATES);
  const run = { agent_id: 'default', input: 'Go.', wait: true, execution_params: { max_iterations: 1 } };
  const { body: limited } = await node.ask('/api/executions', { body: run });
  assert.equal(limited.error.code, 'MAX_ITERATIONS');
  const { finish_reason, input_tokens, output_tokens } = limited.execution_info;
  assert.deepEqual([finish_reason, input_tokens, output_tokens], ['tool_calls', 10, 10]);

  node.stub.next(raw(line(choice({ content: 'Half of' })), { end: 'reset' }));
  const { body: broken } = await node.ask('/api/executions', { body: { ...run, execution_params: {} } });
  assert.equal(broken.error.code, 'MODEL_ERROR');
  assert.deepEqual('finish_reason' in broken.execution_info, false);
});
