/** Group commit: what shares a transaction, in which order, and whose failure is whose. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError } from '../../src/domain/errors.ts';
import { unavailable } from '../../src/store/failure.ts';
import { createGroupCommit, type GroupCommit, type GroupCommitLimits } from '../../src/store/group-commit.ts';
import { loopTurns } from '../support/until.ts';

interface Scene {
  readonly commits: GroupCommit<string, string>;
  /** The batches so far. */
  readonly batches: readonly (readonly string[])[];
  /** Moves the clock. */
  pass(ms: number): void;
  /** Ends the transaction that runs, or the next one. */
  finish(): void;
}

/** Transactions end when told to, or at once with `free`. A write `bad…` fails its transaction, `out` all. */
function scene(limits: Partial<GroupCommitLimits> = {}, free = false): Scene {
  const batches: (readonly string[])[] = [];
  const waiting: (() => void)[] = [];
  let finished = 0;
  let nowMs = 0;
  const apply = async (writes: readonly string[]): Promise<readonly string[]> => {
    batches.push(writes);
    if (!free && finished === 0) await new Promise<void>((resolve) => waiting.push(resolve));
    else finished -= 1;
    if (writes.includes('out')) throw unavailable('out');
    const bad = writes.find((write) => write.startsWith('bad'));
    if (bad) throw new Error(bad);
    return writes.map((write) => `${write} stored`);
  };
  return {
    commits: createGroupCommit({ apply, sizeOf: (write) => write.length, limits, now: () => nowMs }),
    batches,
    pass(ms) {
      nowMs += ms;
    },
    finish() {
      const next = waiting.shift();
      if (next) next();
      else finished += 1;
    },
  };
}

const refused = (error: unknown): boolean =>
  error instanceof RefusalError &&
  error.data.code === 'STORE_UNAVAILABLE' &&
  (error.data.retry_after_ms ?? 0) > 0;

test('writes of one loop turn share a transaction; those that arrive while it runs form the next one', async () => {
  const { commits, batches, finish } = scene();
  const first = ['a', 'b'].map((write) => commits.add(write));
  await loopTurns();
  const second = ['c', 'd', 'e'].map((write) => commits.add(write));
  assert.deepEqual(batches, [['a', 'b']]);

  finish();
  assert.deepEqual(await Promise.all(first), ['a stored', 'b stored']);
  finish();
  assert.deepEqual(await Promise.all(second), ['c stored', 'd stored', 'e stored']);
  assert.deepEqual(batches, [
    ['a', 'b'],
    ['c', 'd', 'e'],
  ]);
});

test('under load a small remainder waits for as many again, and a lone write never waits', async () => {
  const { commits, batches } = scene({ gatherFrom: 2, gatherMs: 20 }, true);
  await commits.add('alone');
  await Promise.all(['a', 'b', 'c'].map((write) => commits.add(write)));
  const next = commits.add('d');
  await loopTurns();
  await Promise.all([next, commits.add('e')]);
  assert.deepEqual(batches, [['alone'], ['a', 'b', 'c'], ['d', 'e']]);

  await commits.close();
  await assert.rejects(commits.add('late'), refused);
});

test('nothing is acknowledged before its transaction has ended', async () => {
  const { commits, finish } = scene();
  let acknowledged = false;
  const write = commits.add('a').then(() => {
    acknowledged = true;
  });
  await loopTurns(5);

  assert.equal(acknowledged, false);
  finish();
  await write;
});

test('a transaction holds at most so many writes and bytes, but always one', async () => {
  const { commits, batches } = scene({ maxWrites: 3, maxBytes: 5 }, true);
  await Promise.all(['a', 'b', 'c', 'd', 'eeee', 'ffffffff', 'g'].map((write) => commits.add(write)));

  assert.deepEqual(batches, [['a', 'b', 'c'], ['d', 'eeee'], ['ffffffff'], ['g']]);
});

test('a write that cannot be stored fails alone; the others are stored in their order', async () => {
  const { commits, batches } = scene({}, true);
  const outcomes = await Promise.allSettled(['a', 'bad 1', 'b', 'bad 2'].map((write) => commits.add(write)));

  assert.deepEqual(
    outcomes.map((each) => (each.status === 'fulfilled' ? each.value : String(each.reason))),
    ['a stored', 'Error: bad 1', 'b stored', 'Error: bad 2'],
  );
  assert.deepEqual(batches, [['a', 'bad 1', 'b', 'bad 2'], ['a'], ['bad 1'], ['b'], ['bad 2']]);
});

test('when the store is out all writes of the transaction are refused, and none is tried again', async () => {
  const { commits, batches } = scene({}, true);
  const outcomes = ['a', 'out', 'b'].map((write) => assert.rejects(commits.add(write), refused));
  await Promise.all(outcomes);

  assert.deepEqual(batches, [['a', 'out', 'b']]);
  assert.equal(await commits.add('later'), 'later stored');
});

test('what waits is bounded by number and by bytes; beyond, writes are refused at once', async () => {
  const { commits, finish } = scene({ maxWaiting: 2, maxWaitingBytes: 10 });
  const running = commits.add('a');
  await loopTurns();
  const waiting = [commits.add('b'), commits.add('c')];

  await assert.rejects(commits.add('d'), refused);
  finish();
  await running;
  await assert.rejects(commits.add('x'.repeat(11)), refused);
  finish();
  await Promise.all(waiting);
});

test('a write that has waited too long is refused and not stored later', async () => {
  const { commits, batches, finish, pass } = scene({ maxWaitMs: 100 });
  const running = commits.add('a');
  await loopTurns();
  const late = assert.rejects(commits.add('b'), refused);
  pass(101);
  finish();

  await Promise.all([running, late]);
  assert.deepEqual(batches, [['a']]);
});

test('settled waits for the writes before it, whatever becomes of them', async () => {
  const { commits } = scene({}, true);
  const seen: string[] = [];
  commits.add('a').then(() => seen.push('a'));
  commits.add('bad').catch(() => seen.push('bad'));
  await commits.settled();

  assert.deepEqual(seen, ['a', 'bad']);
  await commits.settled();
});

test('closing stores what was added and refuses what comes later', async () => {
  const { commits } = scene({}, true);
  const write = commits.add('a');
  const closed = commits.close();

  await assert.rejects(commits.add('b'), refused);
  await closed;
  assert.equal(await write, 'a stored');
  await commits.close();
});
