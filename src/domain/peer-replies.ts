/**
 * What external services answer, in any of the spellings they are known to use, read into the node's own records.
 * Lenient about names and about what may be left out; bounded in everything, for a service is a stranger.
 */
import { z } from 'zod';
import type { Message, Role } from './conversation.ts';
import { cut } from './cut.ts';
import { type ErrorCode, type ErrorData, errorCodeSchema, refusal } from './errors.ts';
import { type TaskId, taskIdSchema } from './ids.ts';

type Fields = Readonly<Record<string, unknown>>;

/** UTF-16 units of a stranger's error text. */
const MAX_ERROR_UNITS = 500;
/** UTF-16 units of one message, one passage, one source. */
const MAX_MESSAGE_UNITS = 100_000;
const MAX_PASSAGE_UNITS = 8_000;
const MAX_SOURCE_UNITS = 300;
/** Entries of a list that are looked at. */
const MAX_ENTRIES = 5_000;
const MAX_PASSAGES = 100;

export const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The first of these that is there and not null. */
export function firstOf(fields: Fields, names: readonly string[]): unknown {
  for (const name of names) {
    const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (value !== undefined && value !== null) return value;
  }
  return undefined;
}

// --- Refusals ------------------------------------------------------------------------------------------------

/** Codes of other services, by what they mean here. */
const FOREIGN_CODES: Readonly<Record<string, ErrorCode>> = {
  VALIDATION_ERROR: 'INVALID_REQUEST',
  BAD_REQUEST: 'INVALID_REQUEST',
  TIMEOUT: 'PEER_TIMEOUT',
  TIMEOUT_ERROR: 'PEER_TIMEOUT',
  PERMISSION_DENIED: 'FORBIDDEN',
  UNAUTHORIZED: 'FORBIDDEN',
  RATE_LIMIT_EXCEEDED: 'RATE_LIMITED',
  SERVICE_UNAVAILABLE: 'OVERLOADED',
  SESSION_NOT_FOUND: 'NOT_FOUND',
  CONVERSATION_NOT_FOUND: 'NOT_FOUND',
  TOOL_NOT_FOUND: 'NOT_FOUND',
};

const retryAfterSchema = z.number().nonnegative().max(86_400_000);

/**
 * What a service refused with, or null where it did not: `success: false`, an `error` (text, or code and message),
 * or a status that says so. A code that is none of ours becomes INTERNAL with the service's text.
 */
export function replyRefusal(data: Fields): ErrorData | null {
  const error = firstOf(data, ['error']);
  const failed =
    data.success === false ||
    (error !== undefined && error !== false && error !== '') ||
    data.status === 'error' ||
    data.status === 'failed';
  if (!failed) return null;
  const inner = isFields(error) ? error : {};
  const said = [firstOf(inner, ['message', 'detail', 'error_message']), error, ...texts(data)].find(
    (text) => typeof text === 'string' && text !== '',
  );
  const given = firstOf(inner, ['code', 'error_code', 'type']) ?? firstOf(data, ['error_code', 'code']);
  const code = given === undefined && isAbsence(said) ? 'NOT_FOUND' : codeOf(given);
  const retryAfter = retryAfterSchema.safeParse(firstOf(inner, ['retry_after_ms']));
  return refusal(code, {
    ...(typeof said === 'string' ? { message: cut(said, MAX_ERROR_UNITS) } : {}),
    ...(retryAfter.success ? { retryAfterMs: retryAfter.data } : {}),
  });
}

/** Services that give no code say it in words. */
const isAbsence = (said: unknown): boolean =>
  typeof said === 'string' && /\bnot found\b|\bno encontrad[ao]\b/i.test(said.slice(0, MAX_ERROR_UNITS));

const texts = (data: Fields): readonly unknown[] => [data.error_message, data.message, data.detail];

function codeOf(value: unknown): ErrorCode {
  if (typeof value !== 'string' || value.length > 64) return 'INTERNAL';
  const name = value.toUpperCase().replace(/[^A-Z0-9]+/g, '_');
  const known = errorCodeSchema.safeParse(name);
  if (known.success) return known.data;
  return (Object.hasOwn(FOREIGN_CODES, name) ? FOREIGN_CODES[name] : undefined) ?? 'INTERNAL';
}

// --- Conversations -------------------------------------------------------------------------------------------

const ROLES: Readonly<Record<string, Role>> = {
  user: 'user',
  human: 'user',
  client: 'user',
  customer: 'user',
  assistant: 'assistant',
  ai: 'assistant',
  agent: 'assistant',
  bot: 'assistant',
  model: 'assistant',
};

/**
 * A conversation, newest last, at most `limit` messages; null where the reply holds no list of them. Entries that
 * are no message of a user or an assistant are left out. A message without a task id shares one that is made of its
 * place with the question before it; one without a time has that of the one before it, at first `nowMs`.
 */
export function readHistory(data: Fields, limit: number, nowMs: number): readonly Message[] | null {
  const conversation = isFields(data.conversation) ? data.conversation : {};
  const list = firstList(data, HISTORY_NAMES) ?? firstList(conversation, HISTORY_NAMES);
  if (!list) return null;
  const read: Message[] = [];
  let made = 0;
  for (const [index, entry] of list.slice(-MAX_ENTRIES).entries()) {
    const message = readMessage(entry);
    if (!message) continue;
    const before = read.at(-1);
    if (message.role === 'user' || before === undefined) made = index;
    read.push({
      role: message.role,
      content: message.content,
      taskId: message.taskId ?? taskIdSchema.parse(`history:${made}`),
      atMs: message.atMs ?? before?.atMs ?? nowMs,
    });
  }
  return newestLast(read).slice(-limit);
}

const HISTORY_NAMES = ['messages', 'history', 'conversation_history'];

interface PeerMessage {
  readonly role: Role;
  readonly content: string;
  readonly taskId: TaskId | undefined;
  readonly atMs: number | undefined;
}

function readMessage(entry: unknown): PeerMessage | null {
  if (!isFields(entry)) return null;
  const named = firstOf(entry, ['role', 'sender', 'sender_type', 'message_type', 'type']);
  const role = typeof named === 'string' ? own(ROLES, named.toLowerCase()) : undefined;
  const content = textOf(firstOf(entry, ['content', 'message', 'text']));
  if (!role || content === '') return null;
  const metadata = isFields(entry.metadata) ? entry.metadata : {};
  return {
    role,
    content: cut(content, MAX_MESSAGE_UNITS),
    taskId: taskIdSchema.safeParse(entry.task_id ?? metadata.task_id).data,
    atMs: timeOf(firstOf(entry, ['created_at', 'timestamp', 'createdAt', 'time'])),
  };
}

/** Some services answer newest first; times tell. */
function newestLast(messages: readonly Message[]): readonly Message[] {
  const [first] = messages;
  const last = messages.at(-1);
  return first && last && first.atMs > last.atMs ? [...messages].reverse() : messages;
}

/** Text, or the parts of it in chat completion form. */
function textOf(value: unknown): string {
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.slice(0, 100).map(textOf).filter(Boolean).join('\n');
  return isFields(value) && typeof value.text === 'string' ? value.text : '';
}

/** ISO 8601, without a zone in UTC; or seconds, or milliseconds. */
function timeOf(value: unknown): number | undefined {
  if (typeof value === 'number' && value > 0 && value < 1e14)
    return Math.round(value < 1e11 ? value * 1000 : value);
  if (typeof value !== 'string' || value.length > 40) return undefined;
  const zoned = /(?:z|[+-]\d\d:?\d\d)$/i.test(value) ? value : `${value.replace(' ', 'T')}Z`;
  const ms = Date.parse(zoned);
  return Number.isNaN(ms) ? undefined : ms;
}

// --- Passages, tools -----------------------------------------------------------------------------------------

/** A passage that a query found. */
export interface Passage {
  readonly text: string;
  /** Where it is from, for people: a file, a title, an address. */
  readonly source: string;
  readonly collection: string;
  /** Higher is better; comparable inside one answer only. */
  readonly score: number;
}

/** Passages in the order of the reply, which may also be one text (`answer`); null where it holds neither. */
export function readPassages(data: Fields, limit: number): readonly Passage[] | null {
  const inner = isFields(data.result) ? data.result : {};
  const list = firstList(data, PASSAGE_NAMES) ?? firstList(inner, PASSAGE_NAMES);
  if (list) return list.slice(0, MAX_PASSAGES).flatMap(readPassage).slice(0, limit);
  const answer = firstOf(data, ['answer', 'response', 'result']);
  if (typeof answer !== 'string' || answer === '') return null;
  return [{ text: cut(answer, MAX_PASSAGE_UNITS), source: '', collection: '', score: 1 }];
}

const PASSAGE_NAMES = ['results', 'passages', 'documents', 'chunks', 'matches', 'result'];

function readPassage(entry: unknown): readonly Passage[] {
  if (typeof entry === 'string') return readPassage({ text: entry });
  if (!isFields(entry)) return [];
  const text = textOf(firstOf(entry, ['text', 'content', 'page_content', 'chunk', 'passage']));
  if (text === '') return [];
  const metadata = isFields(entry.metadata) ? entry.metadata : {};
  const named = (names: readonly string[]): string => {
    const value = firstOf(entry, names) ?? firstOf(metadata, names);
    return typeof value === 'string' ? cut(value, MAX_SOURCE_UNITS) : '';
  };
  const score = firstOf(entry, ['score', 'similarity', 'relevance']);
  return [
    {
      text: cut(text, MAX_PASSAGE_UNITS),
      source: named(['source', 'title', 'document_name', 'file_name', 'url', 'document_id', 'id']),
      collection: named(['collection', 'collection_name', 'collection_id']),
      score: typeof score === 'number' && Number.isFinite(score) ? score : 0,
    },
  ];
}

/** What a tool came to, as text for the model: JSON where it was no text; null where the reply holds nothing. */
export function readToolResult(data: Fields): string | null {
  const result = firstOf(data, ['result', 'output', 'response', 'data']);
  if (result === undefined) return data.success === true ? 'Done.' : null;
  if (typeof result === 'string') return result;
  // msgpack has integers that JSON has not.
  return JSON.stringify(result, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value));
}

// --- Alike ---------------------------------------------------------------------------------------------------

function firstList(fields: Fields, names: readonly string[]): readonly unknown[] | undefined {
  for (const name of names) {
    const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (Array.isArray(value)) return value;
  }
  return undefined;
}

const own = <T>(table: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(table, name) ? table[name] : undefined;
