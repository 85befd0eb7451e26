/** The envelope in which services speak to each other over queues (PROTOCOL 4), and what older senders may write instead. */
import { z } from 'zod';
import { type ErrorData, refusal } from './errors.ts';
import {
  agentIdSchema,
  ID_PATTERN,
  sessionIdSchema,
  taskIdSchema,
  tenantIdSchema,
  userIdSchema,
} from './ids.ts';
import { problemText } from './problems.ts';
import { TIERS, tierSchema } from './tiers.ts';

/** Characters of a queue name. */
const MAX_QUEUE_NAME = 512;
/** Seconds that a sender may ask to wait. */
const MAX_TIMEOUT_S = 86_400;

const traceIdSchema = z.string().regex(ID_PATTERN, 'must be an id');
const recordSchema = z.record(z.string(), z.unknown());

/** The envelope. The order of its fields counts: see ENVELOPE_FIELDS. */
export const domainActionSchema = z.object({
  action_id: traceIdSchema,
  action_type: z
    .string()
    .max(128)
    .regex(/^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/i, 'must be words joined by dots'),
  task_id: taskIdSchema.optional(),
  tenant_id: tenantIdSchema,
  tenant_tier: tierSchema.optional(),
  session_id: sessionIdSchema.optional(),
  user_id: userIdSchema.optional(),
  agent_id: agentIdSchema.optional(),
  correlation_id: traceIdSchema.optional(),
  trace_id: traceIdSchema.optional(),
  data: recordSchema,
  metadata: recordSchema,
  callback_queue: z
    .string()
    .min(1)
    .max(MAX_QUEUE_NAME)
    .regex(/^[\x21-\x7e]+$/, 'must be printable, without spaces')
    .optional(),
  timeout: z.number().positive().max(MAX_TIMEOUT_S).optional(),
  timestamp: z.string(),
});
export type DomainAction = z.infer<typeof domainActionSchema>;

/** The envelope's fields, in the order in which two nodes agree on them. */
export const ENVELOPE_FIELDS = domainActionSchema.keyof().options;

export const ENVELOPE_NAMES: ReadonlySet<string> = new Set([
  ...ENVELOPE_FIELDS,
  'payload',
  'callback_queue_name',
  'execution_context',
]);

/** What older senders put beside the envelope although it belongs into `data`. Anything else unknown is metadata. */
const FLAT_DATA: ReadonlySet<string> = new Set([
  'message',
  'input',
  'user',
  'user_info',
  'message_type',
  'message_data',
  'target_sessions',
  'conversation_id',
  'tools_config',
  'execution_params',
  'context',
  'stream',
  'on_busy',
  'items',
  'concurrency',
  'limit',
  'role',
  'content',
  'status',
  'response',
  'execution_info',
  'success',
  'error',
  'error_code',
  'error_details',
]);

/** Whether a name is one of the envelope's, or of data that may lie beside it: senders repeat them where they are not needed. */
export const isEnvelopeName = (name: string): boolean => ENVELOPE_NAMES.has(name) || FLAT_DATA.has(name);

/** Ids that senders put into the envelope, into `data` or into the context; read from the envelope afterwards. */
const SHARED_IDS = ['agent_id', 'session_id', 'user_id'] as const;

export type ParsedAction =
  | { readonly ok: true; readonly action: DomainAction; readonly idGiven: boolean }
  | { readonly ok: false; readonly error: ErrorData };

/**
 * Reads an action in any of its accepted spellings into the one form that the rest of the node knows.
 * `now`: ms since the epoch, for an action without a timestamp; `newId`: an id for one without `action_id`
 * (`idGiven` is then false: it can not be deduplicated). Refuses with INVALID_REQUEST, naming the fields.
 * The action may share `raw`'s objects: whoever decoded it gives it away.
 */
export function parseDomainAction(raw: unknown, now: number, newId: () => string): ParsedAction {
  if (!isObject(raw)) return refused('The action is not an object.');
  return isCanonical(raw)
    ? { ok: true, action: withAgentInData(raw), idGiven: true }
    : parseInFull(raw, now, newId);
}

/** The path of any spelling, and the measure of the short one: exported for the test that compares them. */
export function parseInFull(raw: Readonly<Fields>, now: number, newId: () => string): ParsedAction {
  const fields = withoutNulls(raw);
  for (const name of ['data', 'payload', 'metadata', 'execution_context']) {
    if (fields[name] !== undefined && !isObject(fields[name]))
      return refused(`The action is malformed: ${name}: must be an object.`);
  }
  const timestamp = isoTime(fields.timestamp, now);
  if (timestamp === null) return refused('The action is malformed: timestamp: must be an ISO 8601 time.');
  const idGiven = fields.action_id !== undefined;
  const settled = settle(fields, timestamp, newId);
  // Objects of any size, and already of their kind: a schema would look at each of their fields.
  const parsed = domainActionSchema.safeParse({ ...settled, data: NONE, metadata: NONE });
  if (parsed.success) return { ok: true, action: { ...parsed.data, ...objectsOf(settled) }, idGiven };
  return refused(`The action is malformed: ${problemText(parsed.error)}.`);
}

const refused = (message: string): ParsedAction => ({
  ok: false,
  error: refusal('INVALID_REQUEST', { message }),
});

export type Fields = Record<string, unknown>;

/** A type that stands for one that can not be read: it is no reply's. */
const UNREADABLE_TYPE = 'unreadable';

/**
 * The envelope of an action that is refused, without what is wrong with it and without its data: enough to tell its
 * sender. Undefined where it names no tenant, whose queues are not known then. `now`, `newId`: as in parseDomainAction.
 */
export function readableEnvelope(raw: unknown, now: number, newId: () => string): DomainAction | undefined {
  if (!isObject(raw)) return undefined;
  const given: Fields = {};
  for (const name of ENVELOPE_NAMES) if (Object.hasOwn(raw, name)) given[name] = raw[name];
  const settled = settle(withoutNulls(given), new Date(now).toISOString(), newId);
  const readable = domainActionSchema.safeParse({ ...settled, data: {}, metadata: {} });
  if (readable.success) return readable.data;
  const wrong = new Set(readable.error.issues.map(({ path }) => path[0]));
  const fields: Fields = { action_id: newId(), action_type: UNREADABLE_TYPE, data: {}, metadata: {} };
  for (const name of ENVELOPE_FIELDS)
    if (!wrong.has(name) && name !== 'data' && name !== 'metadata')
      fields[name] = settled[name] ?? fields[name];
  return domainActionSchema.safeParse(fields).data;
}

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const NONE: Readonly<Fields> = {};

const objectOf = (value: unknown): Fields => (isObject(value) ? value : {});

const objectsOf = ({ data, metadata }: Fields) => ({ data: objectOf(data), metadata: objectOf(metadata) });

// --- The short path ----------------------------------------------------------------------------------------

/** Fields that an action in the one form never lacks. */
const REQUIRED = 6;

/**
 * Whether an action is in the one form already, as nodes write it: then nothing is copied and no schema runs, which is
 * most of what reading an action costs a process that was idle (docs/decisions/0012). In doubt false: the full path
 * decides, and it alone says what is wrong.
 */
const isCanonical = (raw: Fields): raw is DomainAction =>
  isId(raw.action_id) &&
  isActionType(raw.action_type) &&
  isId(raw.tenant_id) &&
  isOurTime(raw.timestamp) &&
  isPlain(raw) &&
  isPlain(raw.data) &&
  isPlain(raw.metadata) &&
  namesItsIds(raw, raw.data) &&
  Object.keys(raw).length === REQUIRED + validOptionals(raw);

/** How many of the fields that may be absent are there; NaN where one is wrong. */
const validOptionals = (raw: Fields): number =>
  idOrNone(raw.task_id) +
  idOrNone(raw.session_id) +
  idOrNone(raw.user_id) +
  idOrNone(raw.agent_id) +
  idOrNone(raw.correlation_id) +
  idOrNone(raw.trace_id) +
  counted(raw.tenant_tier, isTier) +
  counted(raw.callback_queue, isQueueText) +
  counted(raw.timeout, isTimeout);

const counted = (value: unknown, isValid: (value: unknown) => boolean): number => {
  if (value === undefined) return 0;
  return isValid(value) ? 1 : Number.NaN;
};
const idOrNone = (value: unknown): number => counted(value, isId);
const isTier = (value: unknown): boolean => TIERS.some((tier) => tier === value);
const isQueueText = (value: unknown): boolean => isPrintable(value, MAX_QUEUE_NAME);
const isTimeout = (value: unknown): boolean =>
  typeof value === 'number' && value > 0 && value <= MAX_TIMEOUT_S;

/** An object as JSON.parse makes them, but for the key that the schema leaves out. */
const isPlain = (value: unknown): value is Fields =>
  isObject(value) && value.constructor === Object && !Object.hasOwn(value, '__proto__');

/** Whether no id stands in `data` alone, from where it would have to be fetched. */
const namesItsIds = (raw: Fields, data: Fields): boolean =>
  (raw.agent_id !== undefined || isAbsent(data.agent_id)) &&
  (raw.session_id !== undefined || isAbsent(data.session_id)) &&
  (raw.user_id !== undefined || isAbsent(data.user_id));

const isAbsent = (value: unknown): boolean => value === undefined || value === null;

const withAgentInData = (action: DomainAction): DomainAction =>
  action.agent_id === undefined || !isAbsent(action.data.agent_id)
    ? action
    : { ...action, data: { ...action.data, agent_id: action.agent_id } };

// --- Its texts, by hand: one short loop each is a third of what a schema with regexes costs -------------------

const MAX_ID_LENGTH = 128;
const ID = 1;
const WORD = 2;
/** What each ASCII character may stand in. */
const ALPHABETS = new Uint8Array(128);
for (let code = 0; code < ALPHABETS.length; code += 1) {
  const character = String.fromCharCode(code);
  ALPHABETS[code] =
    (/[A-Za-z0-9._:@-]/.test(character) ? ID : 0) | (/[A-Za-z0-9_-]/.test(character) ? WORD : 0);
}
const DOT = 0x2e;

const isIn = (code: number, alphabet: number): boolean =>
  code < ALPHABETS.length && ((ALPHABETS[code] ?? 0) & alphabet) !== 0;

/** As ID_PATTERN. */
function isId(value: unknown): boolean {
  if (typeof value !== 'string' || value.length === 0 || value.length > MAX_ID_LENGTH) return false;
  if (value === '.' || value === '..') return false;
  for (let at = 0; at < value.length; at += 1) if (!isIn(value.charCodeAt(at), ID)) return false;
  return true;
}

/** Words joined by dots, 128 characters at most. */
function isActionType(value: unknown): boolean {
  if (typeof value !== 'string' || value.length > MAX_ID_LENGTH) return false;
  let afterDot = true;
  for (let at = 0; at < value.length; at += 1) {
    const code = value.charCodeAt(at);
    if (code === DOT ? afterDot : !isIn(code, WORD)) return false;
    afterDot = code === DOT;
  }
  return !afterDot;
}

/** 1 to `maxLength` printable characters of ASCII, without spaces. */
function isPrintable(value: unknown, maxLength: number): boolean {
  if (typeof value !== 'string' || value.length === 0 || value.length > maxLength) return false;
  for (let at = 0; at < value.length; at += 1) {
    const code = value.charCodeAt(at);
    if (code < 0x21 || code > 0x7e) return false;
  }
  return true;
}

const TIME_SHAPE = '0000-00-00T00:00:00.000Z';
const [ZERO, NINE] = [0x30, 0x39];

/** A time in our own spelling. Of odd but valid ones (24:00, a leap second) it says false. */
function isOurTime(value: unknown): boolean {
  if (typeof value !== 'string' || value.length !== TIME_SHAPE.length) return false;
  for (let at = 0; at < TIME_SHAPE.length; at += 1) {
    const [code, wanted] = [value.charCodeAt(at), TIME_SHAPE.charCodeAt(at)];
    if (wanted === ZERO ? code < ZERO || code > NINE : code !== wanted) return false;
  }
  return (
    isBetween(value, 5, 1, 12) &&
    isBetween(value, 8, 1, 31) &&
    isBetween(value, 11, 0, 23) &&
    isBetween(value, 14, 0, 59) &&
    isBetween(value, 17, 0, 59)
  );
}

/** Whether the two digits there are a number from `least` to `most`. */
function isBetween(text: string, at: number, least: number, most: number): boolean {
  const number = (text.charCodeAt(at) - ZERO) * 10 + text.charCodeAt(at + 1) - ZERO;
  return number >= least && number <= most;
}

// --- The full path -----------------------------------------------------------------------------------------

/** Brings aliases, flat fields, unknown fields and the context's gap fillers to their places. */
function settle(fields: Fields, timestamp: string, newId: () => string): Fields {
  const context = objectOf(fields.execution_context);
  const data: Fields = { ...objectOf(fields.payload), ...objectOf(fields.data) };
  const metadata: Fields = { ...objectOf(fields.metadata) };
  for (const name in fields) {
    if (ENVELOPE_NAMES.has(name)) continue;
    const place = FLAT_DATA.has(name) ? data : metadata;
    place[name] ??= fields[name];
  }
  if (fields.execution_context !== undefined) metadata.execution_context ??= context;
  if (fields.agent_id !== undefined) data.agent_id ??= fields.agent_id;

  fill(fields, 'action_id', newId);
  for (const name of SHARED_IDS) fill(fields, name, () => data[name] ?? context[name]);
  fill(fields, 'tenant_id', () => context.tenant_id);
  fill(fields, 'tenant_tier', () => context.tenant_tier ?? context.tier);
  fill(fields, 'callback_queue', () => fields.callback_queue_name);
  for (const each of [data, metadata]) Reflect.deleteProperty(each, '__proto__');
  fields.data = data;
  fields.metadata = metadata;
  fields.timestamp = timestamp;
  if (fields.timeout !== undefined) fields.timeout = secondsOf(fields.timeout);
  return fields;
}

const NUMBER = /^\d{1,9}(?:\.\d{1,9})?$/;
const PART = String.raw`(\d{1,9}(?:[.,]\d{1,9})?)`;
const DURATION = new RegExp(
  `^P(?=[\\dT])(?:${PART}W)?(?:${PART}D)?(?:T(?=\\d)(?:${PART}H)?(?:${PART}M)?(?:${PART}S)?)?$`,
  'i',
);
/** Seconds of each part of a duration. Years and months have no length. */
const PART_SECONDS = [604_800, 86_400, 3_600, 60, 1] as const;

/** Seconds out of a number's text or an ISO 8601 duration; whatever else it is stays, for the schema to refuse. */
function secondsOf(value: unknown): unknown {
  if (typeof value !== 'string') return value;
  if (NUMBER.test(value)) return Number(value);
  const parts = DURATION.exec(value)?.slice(1);
  if (!parts) return value;
  return PART_SECONDS.reduce((sum, each, at) => sum + each * Number((parts[at] ?? '0').replace(',', '.')), 0);
}

/** Sets a field that is absent, unless there is nothing to set it to. */
function fill(fields: Fields, name: string, value: () => unknown): void {
  if (fields[name] !== undefined) return;
  const found = value();
  if (found !== undefined && found !== null) fields[name] = found;
}

/** A copy without nulls, which mean "absent" in an envelope; inside `data` they stay. */
function withoutNulls(fields: Readonly<Fields>): Fields {
  const kept: Fields = {};
  for (const name in fields) {
    if (fields[name] !== null && fields[name] !== undefined && name !== '__proto__')
      kept[name] = fields[name];
  }
  return kept;
}

const OUR_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
const ISO_TIME =
  /^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?\s*(Z|z|[+-]\d\d(?::?\d\d)?)?$/;

/** A time as ISO 8601 in UTC with milliseconds; one without a zone is read as UTC. Null where it is no time. */
function isoTime(value: unknown, now: number): string | null {
  if (value === undefined) return new Date(now).toISOString();
  if (typeof value === 'string' && OUR_TIME.test(value) && !Number.isNaN(Date.parse(value))) return value;
  const match = typeof value === 'string' ? ISO_TIME.exec(value) : null;
  if (!match) return null;
  const [, day, clock = '', fraction = '0', zone = 'Z'] = match;
  const seconds = clock.length === 5 ? `${clock}:00` : clock;
  const ms = fraction.padEnd(3, '0').slice(0, 3);
  const time = Date.parse(`${day}T${seconds}.${ms}${zoneOf(zone)}`);
  return Number.isNaN(time) ? null : new Date(time).toISOString();
}

/** `+02`, `+0200` and `+02:00` alike as `+02:00`. */
const zoneOf = (zone: string): string => {
  if (/^z$/i.test(zone)) return 'Z';
  const digits = zone.slice(1).replace(':', '').padEnd(4, '0');
  return `${zone[0]}${digits.slice(0, 2)}:${digits.slice(2)}`;
};
