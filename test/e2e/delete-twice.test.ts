/** A session that several want to delete, and speak in, at once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startTestNode } from '../support/node.ts';

test('deletes of one session at once are answered 204 or 404', async (t) => {
  const node = await startTestNode(t);
  const counts = new Map<number, number>();
  for (let round = 0; round < 40; round += 1) {
    await node.ask('/api/executions', {
      body: { agent_id: 'default', input: 'hi', session_id: 's', wait: true },
    });
    const forget = () => node.ask('/api/sessions/s', { method: 'DELETE' });
    for (const { status } of await Promise.all([forget(), forget(), forget()]))
      counts.set(status, (counts.get(status) ?? 0) + 1);
    assert.equal((await node.ask('/api/sessions/s/messages')).status, 404);
  }
  assert.deepEqual(
    [...counts.keys()].filter((status) => status !== 204 && status !== 404),
    [],
  );
  assert.ok((counts.get(204) ?? 0) >= 40);
});

test('what is said as a session is deleted is taken or refused for a while, and never lost', async (t) => {
  const node = await startTestNode(t);
  for (let round = 0; round < 20; round += 1) {
    const body = { message: 'hi', session_id: 's' };
    await node.ask('/api/chat/send', { body });
    const [, said] = await Promise.all([
      node.ask('/api/sessions/s', { method: 'DELETE' }),
      node.ask('/api/chat/send', { body }),
    ]);
    assert.ok([202, 409].includes(said.status), said.text);
  }
});
