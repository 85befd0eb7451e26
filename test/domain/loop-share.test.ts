/** One turn of the loop does no more for streams than its share, and tenants take turns in it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import { LoopShare } from '../../src/domain/loop-share.ts';
import { loopTurns } from '../support/until.ts';

const ACME = tenantIdSchema.parse('acme');
const LOUD = tenantIdSchema.parse('loud');

test('what is done at once counts, and with the next turn of the loop there is a share again', async () => {
  const share = new LoopShare(3);
  assert.deepEqual([share.take(), share.take(), share.take()], [true, true, false]);
  const { turn } = share;
  await loopTurns();
  assert.equal(share.turn, turn + 1);
  assert.equal(share.take(), true);
});

test('tasks run in the order of each tenant, tenants in turn, a share in each turn of the loop', async () => {
  const share = new LoopShare(4);
  const ran: string[] = [];
  const turns: number[] = [];
  const add = (tenant: typeof ACME, name: string): void =>
    share.soon(tenant, () => {
      ran.push(name);
      turns.push(share.turn);
    });
  for (const name of ['l1', 'l2', 'l3', 'l4', 'l5', 'l6']) add(LOUD, name);
  for (const name of ['a1', 'a2']) add(ACME, name);
  assert.deepEqual(ran, []);
  await loopTurns(4);
  assert.deepEqual(ran, ['l1', 'a1', 'l2', 'a2', 'l3', 'l4', 'l5', 'l6']);
  assert.deepEqual(turns, [1, 1, 1, 1, 2, 2, 2, 2]);
});

test('a task that asks for another gets it', async () => {
  const share = new LoopShare(2);
  const ran: string[] = [];
  share.soon(ACME, () => {
    ran.push('first');
    share.soon(ACME, () => ran.push('second'));
  });
  await loopTurns(3);
  assert.deepEqual(ran, ['first', 'second']);
});
