/** How what a schema found wrong is told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { problemsOf, problemText } from '../../src/domain/problems.ts';
import { requestObject } from '../../src/domain/request-object.ts';

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
    problemText({ issues: error.issues.slice(2, 3) }),
    problemText({ issues: error.issues.slice(0, 1) }),
  ]);
});

test('an unknown field is named with the known one that it is near, and the first hundred are', () => {
  const shape = {
    session_id: z.string(),
    page: z.number().optional(),
    page_size: z.number(),
    on_busy: z.string(),
    q: z.string(),
  };
  const strict = requestObject(shape);
  const text = (value: unknown): string =>
    problemText(strict.safeParse(value).error ?? { issues: [] }, '', 1);
  for (const [name, near] of [
    ['sesion_id', 'session_id'],
    ['sessionId', 'session_id'],
    ['SESSION-ID', 'session_id'],
    ['session', 'session_id'],
    ['pagesize', 'page_size'],
    ['page_sise', 'page_size'],
    ['onbsuy', 'on_busy'],
  ])
    assert.equal(text({ [name ?? '']: 1 }), `${name}: is not a field here; did you mean \`${near}\`?`);
  for (const name of ['query', 'x', '', '😀', 'constructor', 'busybody', 's'.repeat(40)])
    assert.match(text({ [name]: 1 }), /is not a field here$/, name);
  assert.ok(text({ [`session_id${'x'.repeat(10_000)}`]: 1 }).length < 200);

  const many = Object.fromEntries(Array.from({ length: 50_000 }, (_, at) => [`sesion_${at}`, 1]));
  const { error } = strict.safeParse(many);
  assert.ok(error);
  assert.equal(problemsOf(error).length, 100);
  assert.equal(error.issues.length, 5);
});

test('null is absence, where the object is one that a request writes', () => {
  const strict = requestObject({ a: z.string().optional(), b: z.record(z.string(), z.unknown()).optional() });
  assert.deepEqual(strict.parse({ a: null, b: { kept: null } }), { b: { kept: null } });
  for (const wrong of [null, [], 'x', [null]]) assert.equal(strict.safeParse(wrong).success, false);
});
