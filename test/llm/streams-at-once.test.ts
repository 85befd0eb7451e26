/** More answers at once than one turn of the loop reads: each is whole all the same, and lets go when it is aborted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { choice, DONE, line, raw, STOP, USAGE } from '../support/stub-model.ts';
import { answerOf, deltasOf, startBench, userMessage } from './harness.ts';

const STREAMS = 150;
const PIECES = 40;

test('a hundred and fifty answers that come all at once', async () => {
  await using bench = await startBench();
  bench.stub.byDefault(({ index }) => {
    const pieces = Array.from({ length: PIECES }, (_, at) =>
      line(choice({ role: 'assistant', content: `${index}.${at} ` })),
    );
    return raw([...pieces, STOP, USAGE, DONE]);
  });
  const runs = Array.from({ length: STREAMS }, () => bench.start());
  const answers = await Promise.all(
    runs.map(async (run) => [answerOf(await run.done), deltasOf(run.events)]),
  );
  const whole = (index: number): string =>
    Array.from({ length: PIECES }, (_, at) => `${index}.${at} `).join('');
  assert.deepEqual(
    answers.map(([content]) => content).sort(),
    Array.from({ length: STREAMS }, (_, index) => whole(index)).sort(),
  );
  for (const [content, deltas] of answers) assert.equal(deltas, content);
});

test('one that is aborted while it waits for its turn lets its connection go, and the others go on', async () => {
  await using bench = await startBench();
  const piece = line(choice({ role: 'assistant', content: 'On and on. ' }));
  bench.stub.byDefault(({ body }) =>
    body.messages.at(-1)?.content === 'endless'
      ? raw(
          Array.from({ length: 2_000 }, () => piece),
          { end: 'hang' },
        )
      : raw([...Array.from({ length: PIECES }, () => piece), STOP, USAGE, DONE]),
  );
  const start = (message: string, count: number) =>
    Array.from({ length: count }, () => bench.start({ history: [userMessage(message)] }));
  const endless = start('endless', 30);
  const short = start('short', 60);
  await Promise.all(endless.map((run) => run.seen('chat.delta')));
  for (const run of endless) run.abort();
  assert.deepEqual(
    new Set((await Promise.all(endless.map((run) => run.done))).map(({ type }) => type)),
    new Set(['aborted']),
  );
  for (const run of short) assert.equal(answerOf(await run.done), 'On and on. '.repeat(PIECES));
});
