/** The AsyncAPI document as the tests read it, and as much of JSON Schema as it uses. */
import assert from 'node:assert/strict';
import { z } from 'zod';
import { asyncApi } from '../../../transports/asyncapi/document.ts';

const record = z.record(z.string(), z.unknown());
const reference = z.strictObject({ $ref: z.string() });
const channelSchema = z.object({
  address: z.string().nullable(),
  parameters: z.record(z.string(), z.object({ enum: z.array(z.string()).optional() })).default({}),
  messages: z.record(z.string(), reference),
});
const spoken = { channel: reference, messages: z.array(reference).min(1) };
const documentSchema = z.object({
  asyncapi: z.literal('3.0.0'),
  info: z.object({ version: z.literal('1.2.3') }),
  servers: z.record(z.string(), z.object({ host: z.string(), protocol: z.string() })),
  channels: z.record(z.string(), channelSchema),
  operations: z.record(
    z.string(),
    z.object({
      action: z.enum(['receive', 'send']),
      ...spoken,
      reply: z.object({ ...spoken, address: z.object({ location: z.string() }).optional() }).optional(),
    }),
  ),
  components: z.object({
    schemas: z.record(z.string(), record),
    messages: z.record(z.string(), z.object({ payload: record, 'x-content-types': z.array(z.string()) })),
  }),
});
/** As it is served. */
export const text = JSON.stringify(asyncApi({ version: '1.2.3' }));
export const document = documentSchema.parse(JSON.parse(text));

/** What a reference points to. */
export const at = (pointer: string): unknown =>
  pointer
    .slice(2)
    .split('/')
    .reduce((value: unknown, key) => record.safeParse(value).data?.[key], JSON.parse(text));

// --- JSON Schema, as much of it as the document uses -----------------------------------------------------------

const list = z.array(z.unknown());
const isType: Readonly<Record<string, (value: unknown) => boolean>> = {
  object: (value) => record.safeParse(value).success,
  array: Array.isArray,
  string: (value) => typeof value === 'string',
  number: (value) => typeof value === 'number',
  integer: Number.isInteger,
  boolean: (value) => typeof value === 'boolean',
  null: (value) => value === null,
};
const length = (value: unknown): number =>
  typeof value === 'string' ? value.length : Array.isArray(value) ? value.length : Number.NaN;
const within = (compare: (value: number, bound: number) => boolean, size: (value: unknown) => number) => {
  return (bound: unknown, value: unknown): boolean =>
    Number.isNaN(size(value)) || compare(size(value), z.number().parse(bound));
};
const number = (value: unknown): number => (typeof value === 'number' ? value : Number.NaN);
const fields = (value: unknown) => record.safeParse(value).data;
const passes = (): boolean => true;

type Keyword = (rule: unknown, value: unknown, schema: Readonly<Record<string, unknown>>) => boolean;
const KEYWORDS: Readonly<Record<string, Keyword>> = {
  $ref: (rule, value) => fits(at(z.string().parse(rule)), value),
  type: (rule, value) => [rule].flat().some((type) => isType[String(type)]?.(value)),
  const: (rule, value) => rule === value,
  enum: (rule, value) => list.parse(rule).includes(value),
  pattern: (rule, value) => typeof value !== 'string' || new RegExp(String(rule)).test(value),
  minLength: within((size, bound) => size >= bound, length),
  maxLength: within((size, bound) => size <= bound, length),
  minItems: within((size, bound) => size >= bound, length),
  maxItems: within((size, bound) => size <= bound, length),
  minimum: within((value, bound) => value >= bound, number),
  maximum: within((value, bound) => value <= bound, number),
  exclusiveMinimum: within((value, bound) => value > bound, number),
  required: (rule, value) =>
    list.parse(rule).every((name) => Object.hasOwn(fields(value) ?? {}, String(name))),
  properties: (rule, value) =>
    Object.entries(fields(value) ?? {}).every(([name, each]) => fits(record.parse(rule)[name] ?? {}, each)),
  additionalProperties: (rule, value, { properties = {} }) =>
    Object.entries(fields(value) ?? {}).every(
      ([name, each]) => name in record.parse(properties) || (rule !== false && fits(rule, each)),
    ),
  propertyNames: (rule, value) => Object.keys(fields(value) ?? {}).every((each) => fits(rule, each)),
  items: (rule, value) => !Array.isArray(value) || value.every((each) => fits(rule, each)),
  allOf: (rule, value) => list.parse(rule).every((each) => fits(each, value)),
  anyOf: (rule, value) => list.parse(rule).some((each) => fits(each, value)),
  ...{ format: passes, default: passes, description: passes, readOnly: passes },
};

/** Throws at a keyword that it does not know. */
export function fits(schema: unknown, value: unknown): boolean {
  return Object.entries(record.parse(schema)).every(([keyword, rule]) => {
    const check = KEYWORDS[keyword];
    assert.ok(check, `the document uses ${keyword}, which is not checked here`);
    return check(rule, value, record.parse(schema));
  });
}

/** Whether the payload of a message may be this. */
export const describes = (message: string, value: unknown): boolean => {
  const found = document.components.messages[message];
  assert.ok(found, `${message} is not described`);
  return fits(found.payload, JSON.parse(JSON.stringify(value)));
};
