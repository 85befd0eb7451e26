/** Writes as rows of their tables, and rows as the records they were: the one place that knows both. */
import type { Selectable } from 'kysely';
import { z } from 'zod';
import type { Message } from '../domain/conversation.ts';
import { defined } from '../domain/defined.ts';
import { domainActionSchema } from '../domain/domain-action.ts';
import { taskIdSchema, tenantIdSchema } from '../domain/ids.ts';
import { queueNameSchema } from '../domain/queues.ts';
import { isRefusedByModel, type TurnRecord, turnRecordSchema } from '../domain/turn.ts';
import type { Outgoing, Write } from '../ports/store.ts';
import { FLAG, type OutgoingTable, type TenantTable, type TurnTable } from './schema.ts';

/** What both databases take as a parameter. */
export type Param = string | number | null;

/** Values by their columns. */
export type Row = Readonly<Record<string, Param>>;

/** Columns of an accepted turn. */
export const ACCEPTED = [
  'tenant_id',
  'task_id',
  'session_id',
  'agent_id',
  'agent_version',
  'status',
  'created_at',
  'asked',
  'asked_at',
  'flags',
] as const satisfies readonly (keyof TurnTable)[];

/** Columns that the end of a turn changes. */
export const ENDED = [
  'status',
  'agent_id',
  'agent_version',
  'finished_at',
  'content',
  'answer',
  'answered_at',
  'flags',
  'info',
  'error',
  'reasoning',
] as const satisfies readonly (keyof TurnTable)[];

/** Columns of an outgoing message that is stored. */
export const OUTGOING = [
  'tenant_id',
  'id',
  'answers',
  'queue',
  'format',
  'body',
  'created_at',
  'unsent',
] as const satisfies readonly (keyof OutgoingTable)[];

export type TurnKey = Pick<TurnTable, 'tenant_id' | 'task_id'>;
/** By which epoch it is written; null: by who has the database to itself. */
export type ByEpoch = Readonly<Record<'epoch', number | null>>;
export type SessionRow = Pick<TurnTable, 'tenant_id' | 'session_id'>;
export type OutgoingKey = Pick<OutgoingTable, 'tenant_id' | 'id'>;
/** `day`: the UTC day in whose count the turn is. `most`: how many that day may count; null: any. */
export type AcceptedRow = Pick<TurnTable, (typeof ACCEPTED)[number]> &
  ByEpoch & { readonly day: string; readonly most: number | null };
type EndedRow = Pick<TurnTable, (typeof ENDED)[number]> & TurnKey;
export type StoredOutgoing = Pick<OutgoingTable, (typeof OUTGOING)[number]>;

/** The outcome of a write whose session is not its node's by its epoch, and of one whose day is used up. */
export const FENCED = -1;
export const OVER = -2;

/**
 * A write on its way to the database, by the columns of its tables. Its outcome is 1, or 0 where it is a duplicate, or
 * FENCED, or OVER. `accepted` and `ended` are the hot ones.
 */
export type EncodedWrite =
  /** `resumable`: where it is a duplicate of an interrupted turn, that one may go on. */
  | { readonly kind: 'accepted'; readonly row: AcceptedRow; readonly resumable: boolean }
  /** `outgoing` is stored with it, unless it is a duplicate. */
  | { readonly kind: 'ended'; readonly row: EndedRow & ByEpoch; readonly outgoing: readonly StoredOutgoing[] }
  | { readonly kind: 'outgoing'; readonly outgoing: readonly StoredOutgoing[] }
  | { readonly kind: 'sent'; readonly sent: readonly OutgoingKey[] }
  | { readonly kind: 'effects'; readonly row: TurnKey & ByEpoch }
  | { readonly kind: 'overtaken' | 'notified'; readonly row: TurnKey & ByEpoch }
  /** Unless it has ended, or is another turn of that id. */
  | { readonly kind: 'withdrawn'; readonly row: TurnKey & Pick<TurnTable, 'created_at'> }
  | { readonly kind: 'deleted'; readonly row: SessionRow & ByEpoch }
  | { readonly kind: 'released'; readonly row: SessionRow & ByEpoch }
  | { readonly kind: 'tier'; readonly row: Pick<TenantTable, 'tenant_id' | 'tier'> }
  | { readonly kind: 'interrupted'; readonly row: Pick<TurnTable, 'finished_at' | 'error'> }
  /** Deletes at most `most` sessions; its outcome is how many it looked at. */
  | { readonly kind: 'expired'; readonly row: ExpiredBefore & Pick<TenantTable, 'tier'> }
  /** Deletes at most `most` outgoing messages; its outcome is how many. */
  | { readonly kind: 'forgotten'; readonly row: ExpiredBefore }
  /** Proves that a write would be taken. */
  | { readonly kind: 'probe' };

type ExpiredBefore = Readonly<Record<'before_ms' | 'most', number>>;

/** The epoch of a write as its rows have it. */
export const epochOf = ({ epoch = null }: { readonly epoch?: number | null | undefined }): ByEpoch => ({
  epoch,
});

export function encodeAccepted(write: Extract<Write, { type: 'turn-accepted' }>): EncodedWrite {
  const { turn, message, day, most = null, resumable = false } = write;
  return {
    kind: 'accepted',
    row: { ...askedColumns(turn, message), day, most, ...epochOf(write) },
    resumable,
  };
}

/** `nowMs`: when its outgoing messages are stored. */
export function encodeEnded(write: Extract<Write, { type: 'turn-ended' }>, nowMs: number): EncodedWrite {
  const { turn, message, outgoing = [], unrun } = write;
  const ended = { ...endedColumns(turn, message), ...epochOf(write) };
  const row = unrun ? { ...ended, flags: ended.flags | FLAG.unrun } : ended;
  return { kind: 'ended', row, outgoing: outgoing.map((each) => encodeOutgoing(each, nowMs)) };
}

/** What is stored of a turn and its question when it is accepted. */
export function askedColumns(turn: TurnRecord, asked: Message): Omit<AcceptedRow, 'day' | 'most' | 'epoch'> {
  const unsafe = needsEscape(asked.content);
  return {
    tenant_id: turn.tenantId,
    task_id: turn.taskId,
    session_id: turn.sessionId,
    agent_id: turn.agentId,
    agent_version: turn.agentVersion ?? null,
    status: turn.status,
    created_at: turn.createdAtMs,
    asked: unsafe ? escaped(asked.content) : asked.content,
    asked_at: asked.atMs,
    flags: unsafe ? FLAG.askedEscaped : 0,
  };
}

/** What is stored of a turn and its answer when it ends. The two have nearly always one text: then it is stored once. */
export function endedColumns(turn: TurnRecord, answer: Message | undefined): EndedRow {
  const said = encodeText(answer?.content, FLAG.answerEscaped);
  const isAnswer = answer !== undefined && turn.content === answer.content;
  const content = isAnswer
    ? { text: null, flag: FLAG.contentIsAnswer }
    : encodeText(turn.content, FLAG.contentEscaped);
  return {
    tenant_id: turn.tenantId,
    task_id: turn.taskId,
    status: turn.status,
    agent_id: turn.agentId,
    agent_version: turn.agentVersion ?? null,
    finished_at: turn.finishedAtMs ?? null,
    content: content.text,
    answer: said.text,
    answered_at: answer?.atMs ?? null,
    flags:
      said.flag |
      content.flag |
      (answer?.partial ? FLAG.answerPartial : 0) |
      (turn.error && isRefusedByModel(turn.error) ? FLAG.askedRefused : 0),
    info: turn.info === undefined ? null : JSON.stringify(turn.info),
    error: turn.error === undefined ? null : JSON.stringify(turn.error),
    reasoning: turn.reasoning === undefined ? null : JSON.stringify(turn.reasoning),
  };
}

/** A text as it is stored, and `escapedFlag` where it had to be escaped. */
function encodeText(
  text: string | undefined,
  escapedFlag: number,
): { readonly text: string | null; readonly flag: number } {
  if (text === undefined) return { text: null, flag: 0 };
  return needsEscape(text) ? { text: escaped(text), flag: escapedFlag } : { text, flag: 0 };
}

/** UTF-16 units of the texts of a write, and something for the rest: for the bounds of the queue. */
export function sizeOf(write: EncodedWrite): number {
  let size = 'row' in write ? sizeOfRow(write.row) : 0;
  if ('outgoing' in write) for (const row of write.outgoing) size += sizeOfRow(row);
  if ('sent' in write) for (const key of write.sent) size += sizeOfRow(key);
  return size;
}

function sizeOfRow(row: Row): number {
  let size = 0;
  for (const column in row) {
    const value = row[column];
    size += typeof value === 'string' ? value.length : 8;
  }
  return size;
}

type TurnRow = Selectable<TurnTable>;

/** A stored turn. Throws where the row does not hold one: then somebody else wrote it. */
export function turnOf(row: TurnRow): TurnRecord {
  return turnRecordSchema.parse(
    defined({
      taskId: row.task_id,
      tenantId: row.tenant_id,
      sessionId: row.session_id,
      agentId: row.agent_id,
      agentVersion: row.agent_version ?? undefined,
      status: row.status,
      createdAtMs: row.created_at,
      finishedAtMs: row.finished_at ?? undefined,
      content: contentOf(row),
      info: jsonOf(row.info),
      error: jsonOf(row.error),
      reasoning: jsonOf(row.reasoning),
    }),
  );
}

const jsonOf = (text: string | null): unknown => (text === null ? undefined : JSON.parse(text));

function contentOf(row: TurnRow): string | undefined {
  if (row.flags & FLAG.contentIsAnswer) return answerOf(row);
  return row.content === null ? undefined : unescaped(row.content, (row.flags & FLAG.contentEscaped) !== 0);
}

const answerOf = (row: MessageRow): string | undefined =>
  row.answer === null ? undefined : unescaped(row.answer, (row.flags & FLAG.answerEscaped) !== 0);

/** What a turn's messages are read from. */
export type MessageRow = Pick<TurnRow, 'task_id' | 'asked' | 'asked_at' | 'answer' | 'answered_at' | 'flags'>;
export const MESSAGE_COLUMNS = ['task_id', 'asked', 'asked_at', 'answer', 'answered_at', 'flags'] as const;

/** The question, then the answer where there is one. */
export function messagesOf(row: MessageRow): readonly Message[] {
  const taskId = taskIdSchema.parse(row.task_id);
  const question = unescaped(row.asked, (row.flags & FLAG.askedEscaped) !== 0);
  const asked: Message = {
    ...{ role: 'user', content: question, taskId, atMs: row.asked_at },
    ...(row.flags & FLAG.askedRefused ? { refused: true } : {}),
  };
  const content = answerOf(row);
  if (content === undefined || row.answered_at === null) return [asked];
  const answer: Message = { role: 'assistant', content, taskId, atMs: row.answered_at };
  return [asked, row.flags & FLAG.answerPartial ? { ...answer, partial: true } : answer];
}

/** A message as its row; `atMs`: when it is stored. Throws a TypeError where JSON or an id can not hold it. */
export function encodeOutgoing(outgoing: Outgoing, atMs: number): StoredOutgoing {
  checkOutgoing(outgoing);
  const { tenantId, id, answers, queue, format, action } = outgoing;
  return {
    tenant_id: tenantId,
    id,
    answers: answers ?? null,
    queue: queue ?? null,
    format,
    body: action === undefined ? null : JSON.stringify(action),
    created_at: atMs,
    unsent: queue === undefined ? 0 : 1,
  };
}

export type OutgoingRow = Omit<Selectable<OutgoingTable>, 'created_at' | 'unsent' | 'boot'>;
/** What a message is read from. */
export const OUTGOING_ROW = ['seq', 'tenant_id', 'id', 'answers', 'queue', 'format', 'body'] as const;

const formatSchema = z.enum(['json', 'msgpack']);

/** Throws where the row holds no message: then somebody else wrote it. */
export function outgoingOf(row: OutgoingRow): Outgoing {
  return {
    tenantId: tenantIdSchema.parse(row.tenant_id),
    id: row.id,
    answers: row.answers ?? undefined,
    queue: row.queue === null ? undefined : queueNameSchema.parse(row.queue),
    format: formatSchema.parse(row.format),
    action: row.body === null ? undefined : domainActionSchema.parse(JSON.parse(row.body)),
  };
}

// --- Texts: stored so that they come back as they came, whatever characters they hold ------------------------

declare global {
  /** In Node since 20; TypeScript's es2023 library does not list them yet. */
  interface String {
    isWellFormed(): boolean;
    toWellFormed(): string;
  }
}

/**
 * Neither database keeps every JavaScript string: UTF-8 has no lone surrogates, PostgreSQL's text no NUL.
 * Where a text holds one of them it is stored as a JSON string (which escapes both) and a flag says so.
 */
export const needsEscape = (text: string): boolean => !text.isWellFormed() || text.includes('\u0000');

const escaped = (text: string): string => JSON.stringify(text);

/** Undoes `escaped` where `isEscaped`. Throws where what is stored is no JSON string. */
function unescaped(text: string, isEscaped: boolean): string {
  if (!isEscaped) return text;
  const value: unknown = JSON.parse(text);
  if (typeof value !== 'string') throw new Error('An escaped text is not a JSON string.');
  return value;
}

/** Throws a TypeError where an id of the message holds characters that not every database can store. */
function checkOutgoing({ id, answers = '' }: Outgoing): void {
  if (needsEscape(id) || needsEscape(answers))
    throw new TypeError('An outgoing message has an id that can not be stored.');
}

/** A text as searches compare it: in lower case, without what a database refuses. It is never shown. */
export const searchable = (text: string): string =>
  text.toLowerCase().normalize('NFC').toWellFormed().replaceAll('\u0000', '\ufffd');
