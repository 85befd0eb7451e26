/** The thread that reads schemas and matches answers against them: the only place that loads ajv and re2js. */
import { parentPort } from 'node:worker_threads';
import { Ajv, type ValidateFunction } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { LRUCache } from 'lru-cache';
import { RE2JS } from 're2js';
import type { SchemaJob, SchemaReply } from './answer-schemas.ts';

/** UTF-16 units of the schemas whose compiled form is kept: code is some ten times as large. */
const MAX_KEPT_UNITS = 1024 * 1024;
const MAX_KEPT = 500;
const MAX_PROBLEM_UNITS = 300;
/** Keywords under which the definition that a `$ref` names is written out in its place. */
const INLINED = 20;

/** A schema as it was read: what matches answers, or why nothing does. */
interface ReadSchema {
  readonly matches?: ValidateFunction;
  readonly problem?: string;
  readonly unchecked: readonly string[];
}

const kept = new LRUCache<string, ReadSchema>({
  max: MAX_KEPT,
  maxSize: MAX_KEPT_UNITS,
  sizeCalculation: (_read, schema) => schema.length,
});

/** In time linear to the text. Throws for look-arounds and references back, which RE2 does not have. */
function linear(pattern: string) {
  const compiled = RE2JS.compile(RE2JS.translateRegExp(pattern));
  return {
    test: (text: string): boolean => compiled.matcher(text).find(),
    // ajv takes two patterns of one text for the same: an object's own text would be the same for all.
    toString: () => `/${pattern}/re2`,
  };
}

const re2 = Object.assign(linear, { code: 're2' });

/** A checker for one schema alone: what another one names by `$id` is not to be found in it. */
function checker(Dialect: typeof Ajv | typeof Ajv2020, unchecked: string[]): Ajv | Ajv2020 {
  const ajv = new Dialect({
    strict: false,
    logger: false,
    addUsedSchema: false,
    inlineRefs: INLINED,
    multipleOfPrecision: 6,
    code: { regExp: re2 },
  });
  addFormats.default(ajv);
  ajv.removeKeyword('pattern');
  ajv.addKeyword({
    keyword: 'pattern',
    type: 'string',
    schemaType: 'string',
    compile(pattern: string) {
      try {
        const { test } = linear(pattern);
        return test;
      } catch {
        new RegExp(pattern, 'u'); // one that no engine reads makes the schema wrong
        if (!unchecked.includes(pattern)) unchecked.push(pattern);
        return () => true;
      }
    },
  });
  return ajv;
}

/** Of each type: a schema that leads back into itself without end is found out before an answer is. */
const TRIALS = [null, {}, [], '', 0];

function compiled(text: string, Dialect: typeof Ajv | typeof Ajv2020): ReadSchema {
  const unchecked: string[] = [];
  try {
    // The dialect is tried out, not looked up; an asynchronous check would pass everything.
    const { $schema, $async, ...schema } = JSON.parse(text);
    const matches = checker(Dialect, unchecked).compile(schema);
    for (const trial of TRIALS) matches(trial);
    return { matches, unchecked };
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    const problem = error instanceof RangeError ? 'leads back into itself, or is nested too deep' : said;
    return { problem: problem.slice(0, MAX_PROBLEM_UNITS), unchecked: [] };
  }
}

/** By today's dialect, or by draft 7, which many generators still write: lists of `items` are its own. */
function readSchema(text: string): ReadSchema {
  const found = kept.get(text);
  if (found) return found;
  const first = compiled(text, Ajv2020);
  const second = first.problem === undefined ? first : compiled(text, Ajv);
  const read = second.problem === undefined ? second : first;
  kept.set(text, read);
  return read;
}

function replyTo({ schema, answer }: SchemaJob): SchemaReply {
  const { matches, problem, unchecked } = readSchema(schema);
  const reading = { ...(problem === undefined ? {} : { problem }), unchecked: [...unchecked] };
  if (answer === undefined) return reading;
  let value: unknown;
  try {
    value = JSON.parse(answer);
  } catch {
    return { ...reading, misfit: { type: 'not_json' } };
  }
  try {
    if (!matches || matches(value)) return reading;
    return { ...reading, misfit: { type: 'mismatch', at: matches.errors?.[0]?.schemaPath ?? '#' } };
  } catch {
    return { ...reading, misfit: { type: 'unchecked' } };
  }
}

const port = parentPort;
port?.on('message', (job: SchemaJob) => port.postMessage(replyTo(job)));
port?.postMessage('ready');
