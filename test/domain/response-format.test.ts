/** The form of answers: what a caller may ask for, and when an answer is in it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  formatOf,
  formatRefusal,
  jsonMisfit,
  responseFormatSchema,
} from '../../src/domain/response-format.ts';

const bySchema = (schema: unknown, more: object = {}) => ({
  type: 'json_schema',
  json_schema: { name: 'person', schema, ...more },
});
const problem = (format: unknown): string | undefined =>
  responseFormatSchema
    .safeParse(format)
    .error?.issues.map(({ message }) => message)
    .join('; ');

test('what models can be given is taken as it stands', () => {
  const schema = {
    type: 'object',
    properties: {
      _id: { type: ['string', 'null'] },
      tags: { type: 'array', items: { $ref: '#/$defs/tag' } },
    },
    required: ['_id'],
    additionalProperties: false,
    $defs: { tag: { anyOf: [{ enum: ['a', 1, null] }, true] } },
  };
  for (const format of [
    { type: 'text' },
    { type: 'json_object' },
    bySchema({}),
    bySchema(schema, { strict: true, description: 'Somebody.' }),
  ])
    assert.deepEqual(responseFormatSchema.parse(format), format);
});

test('a schema that is none is refused, and where it is wrong is said', () => {
  let deep: object = { type: 'string' };
  for (let level = 0; level < 20; level += 1) deep = { type: 'array', items: deep };
  const wrong: readonly [unknown, RegExp][] = [
    [{ type: 'person' }, /has a type that is none of object/],
    [{ properties: { age: { type: 7 } } }, /^properties\.age has a type/],
    [{ properties: ['age'] }, /properties/],
    [{ properties: { age: 'number' } }, /^properties\.age is no JSON schema/],
    [{ required: 'age' }, /required/],
    [{ enum: [] }, /enum/],
    [{ anyOf: [] }, /anyOf/],
    [{ items: { oneOf: [{ type: 'string' }, null] } }, /^items\.oneOf\.1 is no/],
    [{ $ref: 1 }, /\$ref/],
    [{ _def: {} }, /_def/],
    [{ items: { '~standard': {} } }, /^items has the keyword ~standard/],
    [deep, /deeper than 16/],
    [{ description: 'x'.repeat(70_000) }, /at most 65536/],
  ];
  for (const [schema, expected] of wrong) assert.match(problem(bySchema(schema)) ?? 'taken', expected);
});

test('a format of another shape is refused', () => {
  for (const format of [
    ...['json', null, [], {}, { type: 'xml' }, { type: 'json_object', schema: {} }, { type: 'json_schema' }],
    ...[
      bySchema('x'),
      bySchema([]),
      bySchema(null),
      bySchema({}, { name: 'a b' }),
      bySchema({}, { extra: 1 }),
    ],
  ])
    assert.ok(problem(format), JSON.stringify(format));
});

test('no schema from outside breaks the reading of it', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      responseFormatSchema.safeParse(bySchema(value));
      responseFormatSchema.safeParse(bySchema({ properties: { a: value }, items: value, anyOf: [value] }));
    }),
  );
});

test('a turn’s own format goes over its agent’s, and text takes that away', () => {
  const json = { type: 'json_object' } as const;
  assert.deepEqual(formatOf(undefined, json), json);
  assert.equal(formatOf({ type: 'text' }, json), undefined);
  assert.deepEqual(formatOf(json, null), json);
  assert.equal(formatOf(undefined, undefined), undefined);
});

test('an answer that is not JSON, or not the object that was asked for, is a misfit', () => {
  for (const text of ['{"a":1}', ' {"a":1}\n']) assert.equal(jsonMisfit(text, 'object'), undefined);
  for (const text of ['[1]', '"a"', '1', 'null']) {
    assert.equal(jsonMisfit(text), undefined);
    assert.deepEqual(jsonMisfit(text, 'object'), { type: 'no_object' });
  }
  for (const text of ['', 'Sure!', '```json\n{}\n```', '{"a":1} and so on', '{"a":'])
    assert.deepEqual(jsonMisfit(text), { type: 'not_json' });
});

test('a misfit is worth asking for again, and names a place in the schema alone', () => {
  const mismatch = formatRefusal({ type: 'mismatch', at: '#/properties/age/type' }, false);
  assert.deepEqual([mismatch.code, mismatch.retryable], ['MODEL_ERROR', true]);
  assert.deepEqual(mismatch.details, { field: 'response_format', schema_path: '#/properties/age/type' });
  assert.match(mismatch.message, /at #\/properties\/age\/type/);
  assert.ok(formatRefusal({ type: 'mismatch', at: 'x'.repeat(9_999) }, false).message.length < 300);
  for (const type of ['not_json', 'no_object', 'unchecked'] as const)
    assert.deepEqual(formatRefusal({ type }, false).details, { field: 'response_format' });
  assert.match(formatRefusal({ type: 'not_json' }, true).message, /cut off/);
});
