/** Attempts of a model that failed leave nothing in what the turn thought; and what replies to actions have of a turn. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { actionScene } from '../support/action-client.ts';
import { last } from '../support/chatter.ts';
import { startScene } from '../support/node.ts';
import { choice, DONE, line, raw, refuse, say } from '../support/stub-model.ts';
import type { Received } from '../support/websocket-client.ts';

const thinks = (reasoning_content: string): string => line(choice({ content: null, reasoning_content }));
const answers = (...pieces: readonly string[]) =>
  raw([...pieces, line(choice({ content: 'Yes.' })), line(choice({}, 'stop')) + DONE]);
const breaks = (...pieces: readonly string[]) => raw(pieces, { end: 'reset' });
const ended = (...pieces: readonly string[]) => raw([...pieces, line(choice({}, 'stop')) + DONE]);
const badCall = (...pieces: readonly string[]) => {
  const call = { index: 0, id: 'c1', type: 'function', function: { name: 'nobody', arguments: '{}' } };
  return raw([...pieces, line(choice({ tool_calls: [call] })), line(choice({}, 'tool_calls')) + DONE]);
};

/** What a client has of a turn's reasoning, as the protocol tells it to put the pieces together. */
const thoughts = (frames: readonly Received[]): string =>
  frames
    .filter(({ type }) => type === 'chat.reasoning')
    .reduce((text, { data }) => (data.replace ? data.content : text + data.content), '');

const ERROR = 'data: {"error":{"code":400,"message":"stream_options: unknown field"}}\n\n';

for (const format of ['json', 'msgpack'] as const)
  test(`${format}: reasoning is that of the answer which stands, on the wire and in the record`, async (t) => {
    const node = await startScene(t);
    const protocols = [format === 'json' ? 'nooble' : 'nooble.msgpack'];
    const client = await node.chat('acme', 's1', { protocols, query: { reasoning: '1' } });
    for (const [scenarios, expected] of [
      [[breaks(thinks('wrong')), answers(thinks('right'))], 'right'],
      [[breaks(thinks('wrong')), answers()], ''],
      [[ended(thinks('only thoughts')), ended(thinks('again')), answers(thinks('right'))], 'right'],
      [[refuse(500), answers(thinks('right'))], 'right'],
      [[raw([thinks('wrong'), ERROR]), answers(thinks('right'))], 'right'],
      // A call that no tool takes shows no frame: what was thought before it stands all the same.
      [[badCall(thinks('first')), breaks(thinks('wrong')), answers(thinks('then'))], 'first\n\nthen'],
      [[badCall(thinks('first')), breaks(thinks('wrong')), answers()], 'first'],
    ] as const) {
      node.stub.next(...scenarios);
      const frames = await client.turn('Well?');
      const { task_id } = last(frames, 'chat.response');
      const record = (await node.ask(`/api/chat/tasks/${task_id}`)).body;
      assert.deepEqual([thoughts(frames), record.reasoning ?? ''], [expected, expected]);
    }
  });

test('in a stream of events, and where nothing is streamed, it is the same', async (t) => {
  const node = await startScene(t);
  node.stub.next(breaks(thinks('wrong')), answers(thinks('right')));
  const headers = { accept: 'text/event-stream' };
  const { text } = await node.ask('/api/chat/send?reasoning=1', { body: { message: 'Well?' }, headers });
  const frames = [...text.matchAll(/^data: (.*)$/gm)].map(([, data = '']) => JSON.parse(data));
  assert.equal(thoughts(frames), 'right');
  assert.ok(frames.some(({ data }) => data.replace === true && data.content === ''));

  node.stub.next(breaks(thinks('wrong')), answers(thinks('right')));
  const run = { agent_id: 'default', input: 'Well?', wait: true };
  assert.equal((await node.ask('/api/executions', { body: run })).body.reasoning, 'right');
});

test('replies to actions have the text so far of a run that failed, and the reasoning where it was asked for', async (t) => {
  const { client, stub } = await actionScene(t);
  const half = line(choice({ content: 'Half of' }));
  for (const type of ['execution.agent_run', 'execution.execute', 'chat.process'] as const) {
    const ask = (reasoning: boolean | undefined) =>
      client.ask(
        type,
        { input: 'Well?', ...(reasoning === undefined ? {} : { reasoning }) },
        { session_id: 's1' },
      );
    for (const [wanted, expected] of [
      [true, 'right'],
      [false, undefined],
      [undefined, undefined],
    ] as const) {
      stub.next(breaks(thinks('wrong')), answers(thinks('right')));
      const { action_type, data } = await ask(wanted);
      assert.deepEqual(
        [action_type, data.response, data.reasoning, 'reasoning' in data],
        ['execution.callback', 'Yes.', expected, expected !== undefined],
      );
      stub.next(breaks(thinks('right'), half));
      const failed = await ask(wanted);
      assert.deepEqual(
        [failed.action_type, failed.data.error_code, failed.data.partial, failed.data.reasoning],
        ['execution.error', 'MODEL_ERROR', 'Half of', expected],
      );
    }
  }
  stub.next(refuse(400));
  const refused = await client.ask('execution.agent_run', { input: 'Well?', reasoning: true });
  assert.ok(!('partial' in refused.data) && !('reasoning' in refused.data));
  stub.next(say('Plainly.'));
  const plain = await client.ask('execution.agent_run', { input: 'Well?', reasoning: true });
  assert.ok(!('reasoning' in plain.data));
  const odd = await client.ask('execution.agent_run', { input: 'Well?', reasoning: 'yes' });
  assert.equal(odd.data.error_code, 'INVALID_REQUEST');
});
