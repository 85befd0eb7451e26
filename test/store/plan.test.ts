/** How a batch becomes few PostgreSQL statements without changing what it means. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ACCEPTED, ENDED, type EncodedWrite } from '../../src/store/encode.ts';
import { acceptedOutcomes, columnsOf, endsOf, outgoingOf, planBatch } from '../../src/store/postgres/plan.ts';

const write = (kind: 'accepted' | 'ended', columns: readonly string[], task: string): EncodedWrite => ({
  kind,
  params: columns.map((name) => (name === 'tenant_id' ? 'acme' : name === 'task_id' ? task : null)),
});
const accepted = (task: string) => write('accepted', ACCEPTED, task);
const ended = (task: string) => write('ended', ENDED, task);
const deleted: EncodedWrite = { kind: 'deleted', params: ['acme', 's1'] };

const again = (task: string): EncodedWrite => ({ ...accepted(task), again: true });
const effects = (task: string): EncodedWrite => ({ kind: 'effects', params: ['acme', task] });
const sent = (...ids: readonly string[]): EncodedWrite => ({
  kind: 'sent',
  params: ids.flatMap((id) => ['acme', id]),
});
const outgoing = (...ids: readonly string[]): EncodedWrite => ({
  kind: 'outgoing',
  params: [],
  outgoing: ids.map((id) => ['acme', id]),
});
const endedWith = (task: string, ...ids: readonly string[]): EncodedWrite => ({
  ...outgoing(...ids),
  ...ended(task),
});

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
  assert.deepEqual(columnsOf(writes, step.members, 2)[1], ['a', 'b', 'a']);
});

test('whatever turns and messages of one run need is one statement of each kind', () => {
  assert.deepEqual(
    plan(
      ...[again('a'), effects('a'), endedWith('a', 'm'), sent('m')],
      ...[accepted('b'), effects('b'), ended('b'), outgoing('n'), sent('n')],
    ),
    ['accepted 0,4', 'resumed 0', 'effects 1,5', 'ended 2,6,7', 'sent 3,8'],
  );
});

test('what must come after a later statement of the run starts a new one', () => {
  assert.deepEqual(plan(sent('m'), outgoing('m')), ['sent 0', 'ended 1']);
  assert.deepEqual(plan(sent('m'), endedWith('a', 'm')), ['sent 0', 'ended 1']);
  assert.deepEqual(plan(ended('a'), effects('a')), ['ended 0', 'effects 1']);
  assert.deepEqual(plan(effects('a'), accepted('a')), ['effects 0', 'accepted 1']);
  assert.deepEqual(plan(effects('a'), again('a')), ['effects 0', 'accepted 1', 'resumed 1']);
  assert.deepEqual(plan(again('a'), again('a')), ['accepted 0', 'resumed 0', 'accepted 1', 'resumed 1']);
  assert.deepEqual(plan(endedWith('a', 'm'), endedWith('a', 'n')), ['ended 0', 'ended 1']);
  assert.deepEqual(plan(outgoing('m', 'm'), outgoing('m'), effects('m')), ['effects 2', 'ended 0,1']);
});

test('messages stand in their order, each with the end that it needs', () => {
  const writes = [ended('a'), outgoing('x'), endedWith('b', 'y', 'z'), outgoing('u')];
  const [step] = planBatch(writes);
  assert.ok(step);

  assert.deepEqual(endsOf(writes, step), [0, 2]);
  assert.deepEqual(outgoingOf(writes, step), [
    ['acme', 'x', 0],
    ['acme', 'y', 2],
    ['acme', 'z', 2],
    ['acme', 'u', 0],
  ]);
});
