/** Images beside a message, on a whole node: seen by the model with their message, and by nobody later. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { last } from '../support/chatter.ts';
import { OFFLINE, startScene, startTestNode } from '../support/node.ts';
import { callTools, refuse, say } from '../support/stub-model.ts';

const WEB = 'https://example.com/harbour.png';
const PNG = 'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ';
const SEEN = [
  { type: 'text', text: 'What is this?' },
  { type: 'image_url', image_url: { url: WEB } },
  { type: 'image_url', image_url: { url: PNG } },
];

for (const format of ['json', 'msgpack'] as const)
  test(`${format}: the model sees the images with their message; the conversation holds markers`, async (t) => {
    const node = await startScene(t);
    node.stub.next(callTools([{ name: 'current_time', args: '{}' }]), say('A harbour.'), say('Boats.'));
    const client = await node.chat('acme', 's1', {
      protocols: [format === 'json' ? 'nooble' : 'nooble.msgpack'],
    });
    last(await client.turn('What is this?', { images: [{ url: WEB }, PNG] }), 'chat.response');
    for (const index of [0, 1]) {
      const asked = (await node.stub.request(index)).body.messages.find(({ role }) => role === 'user');
      assert.deepEqual(asked?.content, SEEN);
    }
    last(await client.turn('And there?'), 'chat.response');
    const asked = (await node.stub.request(2)).body.messages.filter(({ role }) => role === 'user');
    assert.deepEqual(
      asked.map(({ content }) => content),
      ['What is this?\n[image] [image]', 'And there?'],
    );
    const { text } = await node.ask('/api/sessions/s1/messages');
    assert.match(text, /What is this\?\\n\[image\] \[image\]/);
    assert.doesNotMatch(text, /example\.com|base64/);
    assert.doesNotMatch(JSON.stringify(node.lines), /harbour\.png|iVBOR/);
  });

test('HTTP, executions, batches and agents of type workflow show images too', async (t) => {
  const node = await startScene(t);
  node.stub.byDefault(() => say('A harbour.'));
  const agent = { name: 'Worker', type: 'workflow', provider: 'openai', model: 'gpt-4.1-mini' };
  const { body: worker } = await node.ask('/api/agents', { body: agent });
  const images = [WEB, { url: PNG }];
  const input = { input: 'What is this?', images };
  const accept = { accept: 'text/event-stream' };
  await node
    .fetch('/api/chat/send', { body: { message: 'What is this?', images }, headers: accept })
    .then((said) => said.text());
  await node.ask('/api/executions', { body: { agent_id: worker.id, ...input, wait: true } });
  await node.ask('/api/executions/batch', { body: { items: [{ agent_id: 'default', ...input }] } });
  for (const index of [0, 1, 2])
    assert.deepEqual((await node.stub.request(index)).body.messages.at(-1)?.content, SEEN);
});

test('what is no image is refused by its field, and no model hears of it', async (t) => {
  const node = await startScene(t);
  const images = [WEB, { url: 'https://169.254.169.254/latest' }];
  const run = { agent_id: 'default', input: 'Go.', images };
  for (const [path, body] of [
    ['/api/chat/send', { message: 'Hi', images }],
    ['/api/executions', run],
    ['/api/executions/batch', { items: [run] }],
  ] as const) {
    const { status, body: refused } = await node.ask(path, { body });
    assert.deepEqual([status, refused.error.code], [400, 'INVALID_REQUEST']);
    assert.match(refused.error.message, /images\.1\.url: must name a host, not an IP address/);
  }
  const client = await node.chat('acme', 's1');
  for (const wrong of [images, 'x', [{}], [null], Array.from({ length: 5 }, () => WEB)]) {
    const [error] = await client.turn('Hi', { images: wrong });
    assert.equal(error?.data.code, 'INVALID_REQUEST');
    assert.match(error?.data.message, /images/);
  }
  assert.deepEqual(node.stub.requests, []);
});

test('a model without eyes ends the turn in an error; the conversation goes on', async (t) => {
  const node = await startScene(t);
  const message = 'Invalid content type. image_url is only supported by certain models.';
  node.stub.next(refuse(400, {}, { error: { message, type: 'invalid_request_error' } }), say('Fine.'));
  const client = await node.chat('acme', 's1');
  assert.equal(last(await client.turn('What is this?', { images: [PNG] }), 'error').data.code, 'MODEL_ERROR');
  assert.equal(last(await client.turn('And now?'), 'chat.response').data.content, 'Fine.');
});

test('an offline model answers to the words', async (t) => {
  const node = await startTestNode(t, { env: { ...OFFLINE, DEFAULT_MODEL: 'offline-echo' } });
  const client = await node.chat('acme', 's1');
  const end = last(await client.turn('What is this?', { images: [PNG] }), 'chat.response');
  assert.match(end.data.content, /What is this\?/);
  assert.doesNotMatch(end.data.content, /\[image\]/);
});
