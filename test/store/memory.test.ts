/** The in-memory store keeps the contract, also when slow, and fails when told to. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import { createMemoryStore } from '../support/memory-store/store.ts';
import { storeContract } from './contract.ts';
import { accept, turnOf } from './records.ts';

storeContract('memory', async () => createMemoryStore());
storeContract('memory, slow', async () => createMemoryStore({ delayTurns: 3 }));

const name = { tenant: 'acme', session: 's1', task: 't1' };
const acme = tenantIdSchema.parse('acme');

test('a write that fails changes nothing, and a later one succeeds', async () => {
  let broken = true;
  const store = createMemoryStore({
    fault: (access) => (broken && access === 'write' ? new Error('disk full') : undefined),
  });

  await assert.rejects(accept(store, name), /disk full/);
  await assert.rejects(store.ping(), /disk full/);
  assert.equal(await store.turn(acme, turnOf(name).taskId), null);
  broken = false;
  assert.equal(await accept(store, name), 'stored');
});

test('a read can fail while writes go through', async () => {
  const store = createMemoryStore({
    fault: (access) => (access === 'read' ? new Error('unreadable') : undefined),
  });

  assert.equal(await accept(store, name), 'stored');
  await assert.rejects(store.turn(acme, turnOf(name).taskId), /unreadable/);
});

test('records are kept as they are, not copied', async () => {
  const store = createMemoryStore();
  const turn = turnOf(name);
  await store.commit({
    type: 'turn-accepted',
    turn,
    message: { role: 'user', content: 'hi', taskId: turn.taskId, atMs: 1 },
    day: '2024-05-01',
  });

  assert.equal(await store.turn(acme, turn.taskId), turn);
});
