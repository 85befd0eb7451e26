/** The form in which an agent is to answer: text, any JSON object, or JSON by a schema that the caller gives. */
import { z } from 'zod';
import { type ErrorData, refusal } from './errors.ts';
import { hasJsonUnits } from './json-size.ts';
import { requestObject, strictObject } from './request-object.ts';

/** UTF-16 units of a schema, as JSON: it goes out with every call of the model. */
const MAX_SCHEMA_UNITS = 64 * 1024;
/** Levels of subschemas. */
const MAX_SCHEMA_DEPTH = 16;

type Fields = Readonly<Record<string, unknown>>;

const TYPES: readonly unknown[] = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'];
/** Keywords with one subschema, a list of them, or a record of them. */
const ONE = ['additionalProperties', 'not', 'contains', 'propertyNames', 'if', 'then', 'else'];
const LISTS = ['anyOf', 'oneOf', 'allOf', 'prefixItems'];
const RECORDS = ['properties', 'patternProperties', '$defs', 'definitions'];

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isText = (value: unknown): boolean => typeof value === 'string';

/** What is wrong with a JSON schema, by its path; undefined where models can be given it. */
function schemaProblem(schema: unknown, path = '', depth = 0): string | undefined {
  const at = (problem: string): string => (path === '' ? problem : `${path} ${problem}`);
  if (typeof schema === 'boolean' && depth > 0) return undefined;
  if (!isFields(schema)) return at('is no JSON schema');
  if (depth > MAX_SCHEMA_DEPTH) return at(`is nested deeper than ${MAX_SCHEMA_DEPTH} levels`);
  // LangChain takes an object with such keys for a schema of zod, and runs it.
  const odd = Object.keys(schema).find((key) => /^[_~]/.test(key));
  if (odd !== undefined) return at(`has the keyword ${odd.slice(0, 40)}, which JSON schema has not`);
  const { type, enum: values, required, $ref, items } = schema;
  if (type !== undefined && ![type].flat().every((each) => TYPES.includes(each)))
    return at(`has a type that is none of ${TYPES.join(', ')}`);
  if (values !== undefined && !(Array.isArray(values) && values.length > 0))
    return at('has an enum that is no list of values');
  if (required !== undefined && !(Array.isArray(required) && required.every(isText)))
    return at('has a required that is no list of names');
  if ($ref !== undefined && !isText($ref)) return at('has a $ref that is no text');
  const under: [string, unknown][] = ONE.filter((key) => schema[key] !== undefined).map((key) => [
    key,
    schema[key],
  ]);
  if (items !== undefined) under.push(...[items].flat().map((each): [string, unknown] => ['items', each]));
  for (const key of LISTS) {
    const list = schema[key];
    if (list === undefined) continue;
    if (!Array.isArray(list) || list.length === 0) return at(`has an ${key} that is no list of schemas`);
    under.push(...list.map((each: unknown, place): [string, unknown] => [`${key}.${place}`, each]));
  }
  for (const key of RECORDS) {
    const record = schema[key];
    if (record === undefined) continue;
    if (!isFields(record)) return at(`has ${key} that are no schemas by name`);
    under.push(
      ...Object.entries(record).map(([name, each]): [string, unknown] => [
        `${key}.${name.slice(0, 64)}`,
        each,
      ]),
    );
  }
  for (const [key, each] of under) {
    const problem = schemaProblem(each, path === '' ? key : `${path}.${key}`, depth + 1);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

const jsonSchema = z.record(z.string(), z.unknown()).superRefine((schema, context) => {
  const isLong = !hasJsonUnits(schema, MAX_SCHEMA_UNITS);
  const problem = isLong ? `must have at most ${MAX_SCHEMA_UNITS} characters` : schemaProblem(schema);
  if (problem !== undefined) context.addIssue({ code: 'custom', message: problem });
});

/** As OpenAI's `response_format`. `text` takes an agent's own format away for one turn. */
export const responseFormatSchema = z.discriminatedUnion('type', [
  strictObject({ type: z.literal('text') }),
  strictObject({ type: z.literal('json_object') }),
  strictObject({
    type: z.literal('json_schema'),
    json_schema: requestObject({
      name: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, 'must be 1 to 64 characters out of A-Z a-z 0-9 _ -'),
      description: z.string().max(1_024).exactOptional(),
      schema: jsonSchema,
      strict: z.boolean().exactOptional(),
    }),
  }),
]);
export type ResponseFormat = z.infer<typeof responseFormatSchema>;

/** A format that asks a model for JSON. */
export type JsonFormat = Exclude<ResponseFormat, { type: 'text' }>;

/** The format of a turn: what its request says, else what its agent does. Undefined: text. */
export function formatOf(
  requested: ResponseFormat | undefined,
  own: ResponseFormat | null | undefined,
): JsonFormat | undefined {
  const format = requested ?? own;
  return format && format.type !== 'text' ? format : undefined;
}

/** Why an answer is not in the format that was asked for. */
export const misfitSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('not_json') }),
  z.object({ type: z.literal('no_object') }),
  /** `at`: the place in the schema that it does not match. */
  z.object({ type: z.literal('mismatch'), at: z.string() }),
  /** Whether it matches could not be found out in time. */
  z.object({ type: z.literal('unchecked') }),
]);
export type Misfit = z.infer<typeof misfitSchema>;

/** Why an answer is not JSON, or, where it must be one, no JSON object. */
export function jsonMisfit(text: string, must?: 'object'): Misfit | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return must === undefined || isFields(value) ? undefined : { type: 'no_object' };
  } catch {
    return { type: 'not_json' };
  }
}

const MAX_PLACE_UNITS = 200;

/**
 * What a client is told of a misfit: where in the schema, and nothing of the answer. `cut`: the answer ended at a limit
 * of length. Asked again, a model may well do better.
 */
export function formatRefusal(misfit: Misfit, cut: boolean): ErrorData {
  const at = misfit.type === 'mismatch' ? misfit.at.slice(0, MAX_PLACE_UNITS) : undefined;
  const details = { field: 'response_format', ...(at === undefined ? {} : { schema_path: at }) };
  return {
    ...refusal('MODEL_ERROR', { message: misfitText(misfit.type, cut, at), details }),
    retryable: true,
  };
}

function misfitText(type: Misfit['type'], cut: boolean, at: string | undefined): string {
  switch (type) {
    case 'not_json':
      return cut
        ? 'The answer was cut off before its JSON was whole.'
        : 'The answer is not the JSON that was asked for.';
    case 'no_object':
      return 'The answer is not a JSON object.';
    case 'mismatch':
      return `The answer does not match its schema at ${at}.`;
    case 'unchecked':
      return 'The answer could not be matched against its schema in time.';
  }
}

/** The refusal of a turn whose own schema no answer can be matched against. */
export const schemaRefusal = (problem: string): ErrorData => {
  const message = `The schema of the answer can not be used: it ${problem}.`;
  return refusal('INVALID_REQUEST', { message, details: { field: SCHEMA_FIELD } });
};

/** Where a format's schema stands. */
export const SCHEMA_FIELD = 'response_format.json_schema.schema';
