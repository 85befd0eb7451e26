/** How a batch becomes few PostgreSQL statements without changing what it means. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ACCEPTED, ENDED, type EncodedWrite } from '../../src/store/encode.ts';
import { acceptedOutcomes, columnsOf, planBatch } from '../../src/store/postgres/plan.ts';

const write = (kind: 'accepted' | 'ended', columns: readonly string[], task: string): EncodedWrite => ({
  kind,
  params: columns.map((name) => (name === 'tenant_id' ? 'acme' : name === 'task_id' ? task : null)),
});
const accepted = (task: string) => write('accepted', ACCEPTED, task);
const ended = (task: string) => write('ended', ENDED, task);
const deleted: EncodedWrite = { kind: 'deleted', params: ['acme', 's1'] };

const plan = (...writes: EncodedWrite[]): readonly string[] =>
  planBatch(writes).map((step) => `${step.kind} ${step.members.join()}`);

test('beginnings and ends that take turns become two statements', () => {
  assert.deepEqual(plan(accepted('a'), ended('a'), accepted('b'), ended('b')), ['accepted 0,2', 'ended 1,3']);
});

test('a beginning that follows an end of its turn stays behind it', () => {
  assert.deepEqual(plan(ended('a'), accepted('a'), ended('b')), ['ended 0', 'accepted 1', 'ended 2']);
});

test('two ends of one turn stay apart, so that the first is the one that counts', () => {
  assert.deepEqual(plan(ended('a'), ended('b'), ended('a')), ['ended 0,1', 'ended 2']);
});

test('beginnings of different days stand apart, since a statement counts for one', () => {
  const tomorrow = { ...accepted('b'), params: [...accepted('b').params.slice(0, -1), '2024-05-02'] };

  assert.deepEqual(plan(accepted('a'), tomorrow, ended('a'), tomorrow), [
    'accepted 0',
    'accepted 1,3',
    'ended 2',
  ]);
});

test('whatever else there is stands alone, in its place', () => {
  assert.deepEqual(plan(accepted('a'), deleted, accepted('a'), ended('a')), [
    'accepted 0',
    'deleted 1',
    'accepted 2',
    'ended 3',
  ]);
});

test('an empty batch needs no statement', () => {
  assert.deepEqual(plan(), []);
});

test('of several beginnings with one id the first is the one that was stored', () => {
  const writes = [accepted('a'), accepted('b'), accepted('a')];
  const [step] = planBatch(writes);
  assert.ok(step);

  assert.deepEqual(acceptedOutcomes(writes, step, new Set(['acme a'])), [1, 0, 0]);
  assert.deepEqual(columnsOf(writes, step)[1], ['a', 'b', 'a']);
});
