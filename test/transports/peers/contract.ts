/** What asking a service promises, wherever the service lives. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { PeerRequest, Peers } from '../../../src/ports/peers.ts';
import type { Embedded } from '../../../transports/peers/peers.ts';
import { refusedWith } from '../../support/transport.ts';
import { acme, embeddedFor, globex, sales, session, task } from './peer-fixtures.ts';

/** `open` makes peers that are answered by these handlers, in the process or elsewhere. */
export function peersContract(
  name: string,
  open: (t: TestContext, embedded: Embedded) => Promise<Peers>,
): void {
  test(`peers, ${name}`, async (t) => {
    const embedded = embeddedFor(t);
    const peers = await open(t, embedded);
    const ask = (type: PeerRequest['type'], data: PeerRequest['data'], more: Partial<PeerRequest> = {}) =>
      peers.ask({ type, tenantId: acme, sessionId: session, taskId: task, data, ...more });

    await t.test('an agent is answered whole, and only to its tenant', async () => {
      const found = await ask('management.get_agent_config', { agent_id: sales });
      assert.equal(found.success, true);
      assert.partialDeepStrictEqual(found.agent_config, { id: 'sales', tenant_id: 'acme', version: 1 });
      const foreign = ask('management.get_agent_config', { agent_id: sales }, { tenantId: globex });
      assert.equal(await refusedWith(foreign), 'NOT_FOUND');
    });

    await t.test('a conversation is answered newest last, and an unknown one is refused', async () => {
      const { messages } = await ask('conversation.get_history', { session_id: session, limit: 10 });
      assert.deepEqual(messages, [
        { role: 'user', content: 'Hello', task_id: 'task-1', created_at: '1970-01-01T00:00:01.000Z' },
        { role: 'assistant', content: 'Hi', task_id: 'task-1', created_at: '1970-01-01T00:00:02.000Z' },
      ]);
      const unknown = ask('conversation.get_history', { session_id: 'other' });
      assert.equal(await refusedWith(unknown), 'NOT_FOUND');
    });

    await t.test('texts become vectors, one each, whether one or several are given', async () => {
      const { embeddings, model } = await ask('embedding.request', { texts: ['a b', 'c'] });
      assert.equal(model, 'offline-hash-256');
      assert.ok(Array.isArray(embeddings) && embeddings.length === 2 && embeddings[0].length === 256);
      const one = await ask('embedding.request', { text: 'a b' });
      assert.deepEqual(one.embeddings, [embeddings[0]]);
    });

    await t.test('a query finds passages of its tenant alone', async () => {
      const data = { query: 'how many days for goods', collections: ['docs'], top_k: 3 };
      const { results } = await ask('query.request', data);
      assert.partialDeepStrictEqual(results, [{ source: 'returns.md › Returns', collection: 'docs' }]);
      assert.deepEqual((await ask('query.request', data, { tenantId: globex })).results, []);
      for (const way of ['../acme/docs', '..', 'docs/../../acme/docs', ''])
        assert.equal(
          await refusedWith(ask('query.request', { query: 'x', collections: [way] })),
          'INVALID_REQUEST',
        );
    });

    await t.test('a tool is carried out; what it refuses comes back as its text', async () => {
      const data = { tool: 'calculator', args: { expression: '6 * 7' } };
      assert.deepEqual(await ask('tool.execute', data), { success: true, result: '42' });
      const broken = { tool: 'calculator', args: { expression: 'process' } };
      await assert.rejects(ask('tool.execute', broken), /process is not available here/);
      assert.equal(await refusedWith(ask('tool.execute', { tool: 'shell' })), 'NOT_FOUND');
      assert.equal(
        await refusedWith(ask('tool.execute', { ...data, args: { expression: 3 } })),
        'INVALID_REQUEST',
      );
    });

    await t.test('what is no request of its type is refused', async () => {
      const wrong: readonly [PeerRequest['type'], PeerRequest['data']][] = [
        ['management.get_agent_config', {}],
        ['conversation.get_history', { limit: -1 }],
        ['conversation.get_history', { limit: 1e9 }],
        ['embedding.request', {}],
        ['embedding.request', { texts: Array(1_000).fill('x') }],
        ['query.request', { query: 'x' }],
        ['query.request', { query: 'x'.repeat(10_000), collections: ['docs'] }],
        ['tool.execute', { tool: { name: 'calculator' } }],
      ];
      for (const [type, data] of wrong)
        assert.equal(await refusedWith(ask(type, data)), 'INVALID_REQUEST', `${type} ${Object.keys(data)}`);
    });

    await t.test('a request that was called off is not made', async () => {
      const data = { agent_id: sales };
      const off = ask('management.get_agent_config', data, { signal: AbortSignal.abort() });
      assert.equal(await refusedWith(off), 'INTERRUPTED');
    });
  });
}
