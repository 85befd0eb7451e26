/** How a batch becomes few PostgreSQL statements without changing what it means. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EncodedWrite } from '../../src/store/encode.ts';
import { planBatch } from '../../src/store/postgres/plan.ts';

const key = (task: string) => ({ tenant_id: 'acme', task_id: task });
const accepted = (
  task: string,
  day = '2024-05-01',
  resumable = false,
  most: number | null = null,
): EncodedWrite => ({
  kind: 'accepted',
  row: {
    ...{ ...key(task), session_id: 's1', agent_id: 'default', agent_version: null, status: 'processing' },
    ...{ created_at: 1, asked: 'hi', asked_at: 1, flags: 0, day, most, epoch: null },
  },
  resumable,
});
const resumable = (task: string) => accepted(task, '2024-05-01', true);
const message = (id: string) => ({
  ...{ tenant_id: 'acme', id, answers: null, queue: null, format: 'json', body: null },
  ...{ created_at: 1, unsent: 0 },
});
const ended = (task: string, ...ids: readonly string[]): EncodedWrite => ({
  kind: 'ended',
  row: {
    ...{ ...key(task), status: 'completed', agent_id: 'default', agent_version: null, finished_at: 2 },
    ...{
      content: null,
      answer: null,
      answered_at: null,
      flags: 0,
      info: null,
      error: null,
      reasoning: null,
      epoch: null,
    },
  },
  outgoing: ids.map(message),
});
const deleted: EncodedWrite = { kind: 'deleted', row: { tenant_id: 'acme', session_id: 's1', epoch: null } };
const effects = (task: string): EncodedWrite => ({ kind: 'effects', row: { ...key(task), epoch: null } });
const sent = (...ids: readonly string[]): EncodedWrite => ({
  kind: 'sent',
  sent: ids.map((id) => ({ tenant_id: 'acme', id })),
});
const outgoing = (...ids: readonly string[]): EncodedWrite => ({
  kind: 'outgoing',
  outgoing: ids.map(message),
});

/** Each statement with the places of the writes whose rows it has, and the messages that it stores. */
const plan = (...writes: EncodedWrite[]): readonly string[] =>
  planBatch(writes).map(({ kind, places, outgoing: stored }) =>
    [kind, places.join(), ...stored.map(({ id }) => `+${id}`)].filter(Boolean).join(' '),
  );

test('beginnings and ends that take turns become two statements', () => {
  assert.deepEqual(plan(accepted('a'), ended('a'), accepted('b'), ended('b')), ['accepted 0,2', 'ended 1,3']);
});

test('a beginning that follows an end of its turn stays behind it', () => {
  assert.deepEqual(plan(ended('a'), accepted('a'), ended('b')), ['ended 0', 'accepted 1', 'ended 2']);
});

test('two ends of one turn stay apart, so that the first is the one that counts', () => {
  assert.deepEqual(plan(ended('a'), ended('b'), ended('a')), ['ended 0,1', 'ended 2']);
});

test('where a day has a limit its count is taken first, once; beginnings under another limit stand apart', () => {
  const within = (task: string, most: number | null) => accepted(task, '2024-05-01', false, most);
  assert.deepEqual(plan(ended('z'), within('a', 5), within('b', 5)), [
    'counting',
    'acceptedWithin 1,2',
    'ended 0',
  ]);
  assert.deepEqual(plan(within('a', null), within('b', 5), within('c', 6), within('d', null)), [
    'counting',
    'accepted 0',
    'acceptedWithin 1',
    'acceptedWithin 2',
    'accepted 3',
  ]);
  assert.equal(planBatch([within('a', 5), ended('a'), within('b', 5)])[0]?.rows.length, 1);
});

test('beginnings of different days stand apart, since a statement counts for one', () => {
  const tomorrow = accepted('b', '2024-05-02');

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

test('several beginnings with one id stand in their order, so that the first is stored', () => {
  const [step, ...more] = planBatch([accepted('a'), accepted('b'), accepted('a')]);

  assert.deepEqual(more, []);
  assert.deepEqual(step?.places, [0, 1, 2]);
  assert.deepEqual(
    step?.rows.map((row) => row.task_id),
    ['a', 'b', 'a'],
  );
});

test('whatever turns and messages of one run need is one statement of each kind', () => {
  assert.deepEqual(
    plan(
      ...[resumable('a'), effects('a'), ended('a', 'm'), sent('m')],
      ...[accepted('b'), effects('b'), ended('b'), outgoing('n'), sent('n')],
    ),
    ['accepted 0,4', 'resumed 0', 'effects 1,5', 'ended 2,6 +m +n', 'sent 3,8'],
  );
});

test('what must come after a later statement of the run starts a new one', () => {
  assert.deepEqual(plan(sent('m'), outgoing('m')), ['sent 0', 'ended +m']);
  assert.deepEqual(plan(sent('m'), ended('a', 'm')), ['sent 0', 'ended 1 +m']);
  assert.deepEqual(plan(ended('a'), effects('a')), ['ended 0', 'effects 1']);
  assert.deepEqual(plan(effects('a'), accepted('a')), ['effects 0', 'accepted 1']);
  assert.deepEqual(plan(effects('a'), resumable('a')), ['effects 0', 'accepted 1', 'resumed 1']);
  assert.deepEqual(plan(resumable('a'), resumable('a')), [
    'accepted 0',
    'resumed 0',
    'accepted 1',
    'resumed 1',
  ]);
  assert.deepEqual(plan(ended('a', 'm'), ended('a', 'n')), ['ended 0 +m', 'ended 1 +n']);
  assert.deepEqual(plan(outgoing('m', 'm'), outgoing('m'), effects('m')), ['effects 2', 'ended +m +m +m']);
});

test('messages stand in their order, each with the end that it needs', () => {
  const writes = [ended('a'), outgoing('x'), ended('b', 'y', 'z'), outgoing('u')];
  const [step, ...more] = planBatch(writes);

  assert.deepEqual(more, []);
  assert.deepEqual(step?.places, [0, 2]);
  assert.deepEqual(
    step?.outgoing.map(({ id, end }) => `${id} ${end}`),
    ['x 0', 'y 2', 'z 2', 'u 0'],
  );
});
