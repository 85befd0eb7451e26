/** Takes secrets and the texts of conversations out of the fields, errors and strings of a log line. */

/** Values under these names never reach the log, whatever they are. Compared without case and punctuation. */
const SECRET_NAME = /authorization|cookie|apikey|secret|passw|credential|privatekey|bearer|jwt/;
/** Texts of people and models, and tokens: only their length is logged. Numbers and flags under these names are harmless. */
const TEXT_NAME =
  /^(user|system|last)?(messages?|contents?|texts?|prompts?|inputs?|outputs?|answers?|history|body|context|data|deltas?|args|arguments|results?|partial|payload|reasoning|thoughts?|images?)$|token$/;

const MAX_DEPTH = 6;
const MAX_ITEMS = 50;
const MAX_STRING_UNITS = 2_000;
const MAX_ERROR_UNITS = 300;
const MAX_STACK_LINES = 20;
const MAX_CAUSES = 4;

const REDACTED = '[redacted]';

/** One cheap look before the replacements: most strings are ids. */
const SUSPICIOUS = /sk[-_]|whsec_|eyJ|bearer|:\/\//i;
const KEYS = /\b(?:g?sk[-_]|whsec_)[A-Za-z0-9_+/=-]{6,}/g;
const JWTS = /\beyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]+){1,2}/g;
const BEARERS = /\b(bearer)[\s.:=]+[A-Za-z0-9._~+/=-]{6,}/gi;
const URL_CREDENTIALS = /\b([a-z][a-z0-9+.-]{0,20}:\/\/)[^\s/@]{0,300}@/gi;

/** A string without API keys, bearer tokens, JWTs and passwords in URLs, cut at 2,000 units. */
export function scrubText(text: string): string {
  const cut = text.length > MAX_STRING_UNITS ? `${text.slice(0, MAX_STRING_UNITS)}…` : text;
  if (cut.length < 8 || !SUSPICIOUS.test(cut)) return cut;
  return cut
    .replace(BEARERS, `$1 ${REDACTED}`)
    .replace(KEYS, REDACTED)
    .replace(JWTS, REDACTED)
    .replace(URL_CREDENTIALS, `$1${REDACTED}@`);
}

/**
 * Fields as they may be logged: plain data of bounded depth and size, secrets and conversation texts replaced,
 * errors reduced to what helps (see `describeError`). Never throws, also not for cycles and throwing getters.
 */
export function scrubFields(fields: object): Record<string, unknown> {
  return scrubObject(fields, 0);
}

function scrubObject(source: object, depth: number): Record<string, unknown> {
  const clean: Record<string, unknown> = {};
  let count = 0;
  for (const key of Object.keys(source)) {
    count += 1;
    if (count > MAX_ITEMS) {
      clean['…'] = 'more fields';
      break;
    }
    clean[key] = scrubNamed(key, read(source, key), depth);
  }
  return clean;
}

function read(source: object, key: string): unknown {
  try {
    return Reflect.get(source, key);
  } catch {
    return '[unreadable]';
  }
}

function scrubNamed(key: string, value: unknown, depth: number): unknown {
  if (value === undefined || value === null || typeof value === 'boolean') return value;
  const kind = kindOf(key);
  if (kind === 'secret') return REDACTED;
  if (kind === 'text' && typeof value !== 'number' && !(value instanceof Error)) return outline(value);
  return scrubValue(value, depth);
}

type NameKind = 'secret' | 'text' | 'plain';

/** The same few names come with every line: looking them up halves the cost of a line. */
const nameKinds = new Map<string, NameKind>();
const MAX_NAMES = 1_000;

function kindOf(key: string): NameKind {
  const known = nameKinds.get(key);
  if (known) return known;
  const name = key.toLowerCase().replace(/[^a-z0-9]/g, '');
  const kind = SECRET_NAME.test(name) ? 'secret' : TEXT_NAME.test(name) ? 'text' : 'plain';
  if (nameKinds.size < MAX_NAMES) nameKinds.set(key, kind);
  return kind;
}

/** How much there was, for those who look for a cause. */
function outline(value: unknown): string {
  if (typeof value === 'string') return `[${value.length} units]`;
  if (Array.isArray(value)) return `[${value.length} items]`;
  return REDACTED;
}

function scrubValue(value: unknown, depth: number): unknown {
  switch (typeof value) {
    case 'string':
      return scrubText(value);
    case 'number':
    case 'boolean':
    case 'undefined':
      return value;
    case 'bigint':
      return String(value);
    case 'object':
      return value === null ? null : scrubStructure(value, depth + 1);
    default:
      return `[${typeof value}]`;
  }
}

function scrubStructure(value: object, depth: number): unknown {
  if (value instanceof Error) return describeError(value);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (depth > MAX_DEPTH) return '[deep]';
  if (value instanceof Map || value instanceof Set) return `[${value.size} items]`;
  if (!Array.isArray(value)) return scrubObject(value, depth);
  const items = value.slice(0, MAX_ITEMS).map((item) => scrubValue(item, depth));
  return value.length > MAX_ITEMS ? [...items, `and ${value.length - MAX_ITEMS} more`] : items;
}

/**
 * An error as it may be logged: type, code, status, text, where it was thrown, and its causes.
 * What providers hang onto errors (request and response bodies, headers) is left out, and so is everything that
 * stands in double quotes in its text: JSON.parse and model clients quote there what a user wrote.
 */
function describeError(error: Error, causes = 0): Record<string, unknown> {
  const code = read(error, 'code');
  const status = read(error, 'status');
  const cause = read(error, 'cause');
  const issues = read(error, 'issues');
  return {
    type: scrubText(String(read(error, 'name'))),
    text: errorText(String(read(error, 'message'))),
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    ...(typeof status === 'number' ? { status } : {}),
    ...(Array.isArray(issues) ? { issues: issues.slice(0, 10).map(issueText) } : {}),
    stack: frames(read(error, 'stack')),
    ...(cause instanceof Error && causes < MAX_CAUSES ? { cause: describeError(cause, causes + 1) } : {}),
  };
}

/** A zod issue: where and what kind, without the value. */
function issueText(issue: unknown): string {
  if (typeof issue !== 'object' || issue === null) return '?';
  const path = read(issue, 'path');
  return `${Array.isArray(path) ? path.map(String).join('.') : '?'}: ${String(read(issue, 'code'))}`;
}

/** Bodies are JSON or quoted: both go. */
function errorText(text: string): string {
  const unquoted = text.slice(0, 4 * MAX_ERROR_UNITS).replace(/"[^"]*"?/g, '"…"');
  const cut = unquoted.length > MAX_ERROR_UNITS ? `${unquoted.slice(0, MAX_ERROR_UNITS)}…` : unquoted;
  return scrubText(cut);
}

/** Only the frames: the lines above them repeat the text. */
function frames(stack: unknown): readonly string[] {
  if (typeof stack !== 'string') return [];
  return stack
    .split('\n')
    .filter((line) => /^\s+at /.test(line))
    .slice(0, MAX_STACK_LINES)
    .map((line) => scrubText(line.trim()));
}
