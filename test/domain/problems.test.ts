/** How what a schema found wrong is told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { problemsOf, problemText } from '../../src/domain/problems.ts';

const schema = z.strictObject({ name: z.string(), items: z.array(z.object({ n: z.number() })) });

const errorOf = (value: unknown): z.ZodError => {
  const parsed = schema.safeParse(value);
  assert.ok(parsed.error);
  return parsed.error;
};

test('problems are named by their field, with dots, and by the rule that is broken', () => {
  const problems = problemsOf(errorOf({ name: 'x', items: [{ n: 1 }, { n: 'two' }] }));
  assert.deepEqual(
    problems.map(({ field, rule }) => [field, rule]),
    [['items.1.n', 'invalid_type']],
  );
});

test('what is wrong with the value itself stands under the name that the caller gives it', () => {
  const error = errorOf([]);
  assert.equal(problemsOf(error, 'body')[0]?.field, 'body');
  assert.match(problemText(error, 'body'), /^body: /);
  assert.equal(problemText(error), error.issues[0]?.message);
});

test('no more problems are named than the caller wants', () => {
  const error = errorOf({ name: 1, items: 2, other: 3 });
  assert.equal(problemsOf(error).length, 3);
  assert.equal(problemsOf(error, '', 2).length, 2);
  assert.deepEqual(problemText(error, 'body', 2).split('; '), [
    problemText({ issues: error.issues.slice(0, 1) }),
    problemText({ issues: error.issues.slice(1, 2) }),
  ]);
});
