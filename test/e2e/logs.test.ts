/** The log says what happened to whom, and never what was said, nor with which key. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LogLine, startScene } from '../support/node.ts';
import { callTools, cutAfter, refuse, say, stallAfter } from '../support/stub-model.ts';
import { JWT, token } from '../support/tokens.ts';

const CANARY = {
  apiKey: 'sk-canary-0123456789abcdef',
  message: 'canary-message-of-the-user',
  answer: 'canary-answer-of-the-model',
  context: 'canary-context-value',
  expression: '424242 + 171717',
  result: '595959',
  provider: 'canary',
};

for (const level of ['info', 'debug', 'trace'])
  test(`at ${level} the log holds ids, and no text, key or token`, async (t) => {
    const scene = await startScene(t, {
      env: { ...JWT, EXECUTION_LOG_LEVEL: level, OPENAI_API_KEY: CANARY.apiKey },
    });
    const { stub, chat, ask, lines } = scene;
    const mine = await token('acme');
    const headers = { Authorization: `Bearer ${mine}` };
    stub.next(
      callTools([{ name: 'calculator', args: JSON.stringify({ expression: CANARY.expression }) }]),
      say(CANARY.answer),
      refuse(400),
      refuse(401),
      cutAfter(CANARY.answer),
      stallAfter(CANARY.answer),
      callTools([{ name: 'calculator', args: `{"canary-arguments` }]),
      say(CANARY.answer),
    );
    const client = await chat('acme', 's1', { headers });
    const context = { canary: CANARY.context };
    const tasks: Record<string, string> = {};
    const turn = async (name: string, message = CANARY.message): Promise<void> => {
      tasks[name] = client.say(message, { context });
      await client.ended(tasks[name]);
    };
    await turn('completed');
    await turn('failed');
    await turn('unauthorized');
    await turn('cut');
    tasks.cancelled = client.say(CANARY.message);
    await client.see(({ task_id, type }) => task_id === tasks.cancelled && type === 'chat.delta');
    client.send({ type: 'chat.cancel', task_id: tasks.cancelled });
    await client.ended(tasks.cancelled);
    await turn('mistaken');
    client.send(`{"type":"chat.send","message":"${CANARY.message}`);
    await client.see(({ type, seq }) => type === 'error' && seq === undefined);

    const asked = { tenant: null, headers: { ...headers, 'x-request-id': 'request-1' } };
    const sent = await ask('/api/chat/send', {
      ...asked,
      body: { message: CANARY.message, task_id: 'http-1' },
    });
    assert.equal(sent.headers.get('x-request-id'), 'request-1');
    await ask('/api/chat/send', { ...asked, body: `{"message":"${CANARY.message}` });
    await ask(`/api/chat/tasks/t?token=${mine}`, asked);
    for (const bad of [`Bearer ${mine}x`, 'Bearer canary-token'])
      await ask('/api/chat/tasks/t', { tenant: null, headers: { Authorization: bad } });
    await client.close();
    await scene.running.close();

    const log = lines.map((line) => JSON.stringify(line)).join('\n');
    for (const [name, text] of Object.entries({
      ...CANARY,
      token: mine,
      signature: mine.split('.')[2] ?? '',
    }))
      assert.ok(!log.includes(text), `${name} stands in the log: ${lineWith(log, text)}`);
    assert.ok(lines.every(({ service, node }) => service === 'nooble' && node === 'test-node'));

    const about = (taskId: string | undefined): readonly LogLine[] =>
      lines.filter(({ task_id }) => task_id === taskId);
    for (const name of level === 'info' ? ['failed', 'unauthorized', 'cut'] : Object.keys(tasks)) {
      const line = about(tasks[name]).find(({ status }) => status !== undefined);
      assert.ok(line, `no line tells the end of the turn that was ${name}`);
      assert.deepEqual([line.tenant_id, line.session_id], ['acme', 's1']);
      if (['completed', 'failed', 'cancelled'].includes(name)) assert.equal(line.status, name);
    }
    if (level !== 'info')
      assert.ok(
        about('http-1').some(({ request_id }) => request_id === 'request-1'),
        'the request id leads nowhere',
      );
    if (level === 'info') assert.deepEqual(about(tasks.completed), [], 'a line for every turn is too dear');
  });

const lineWith = (log: string, text: string): string | undefined =>
  log.split('\n').find((line) => line.includes(text));
