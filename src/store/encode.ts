/** Writes as the parameters of their statements, and rows as the records they were: the one place that knows both. */

import type { Selectable } from 'kysely';
import { z } from 'zod';
import type { Message } from '../domain/conversation.ts';
import { defined } from '../domain/defined.ts';
import { domainActionSchema } from '../domain/domain-action.ts';
import { taskIdSchema, tenantIdSchema } from '../domain/ids.ts';
import { queueNameSchema } from '../domain/queues.ts';
import type { TurnRecord } from '../domain/turn.ts';
import { turnRecordSchema } from '../domain/turn.ts';
import type { Outgoing, Write } from '../ports/store.ts';
import { FLAG, type OutgoingTable, type TurnTable } from './schema.ts';
import { checkOutgoing, escaped, needsEscape, unescaped } from './text.ts';

/** What both databases take as a parameter. */
export type Param = string | number | null;

/**
 * A write on its way to the database. `accepted` and `ended` are the hot ones; their parameters stand in the order
 * of ACCEPTED and ENDED. `probe` proves that a write would be taken. `expired` deletes at most `limit` sessions and
 * its outcome is how many it looked at; `forgotten` does so with outgoing messages. `sent` is tenant, id, tenant, id …
 */
export interface EncodedWrite {
  readonly kind:
    | 'accepted'
    | 'effects'
    | 'ended'
    | 'overtaken'
    | 'outgoing'
    | 'sent'
    | 'deleted'
    | 'told'
    | 'tier'
    | 'interrupted'
    | 'expired'
    | 'forgotten'
    | 'probe';
  readonly params: readonly Param[];
  /** Of `accepted`: where it is a duplicate of an interrupted turn, that one may go on (`resumed`). */
  readonly again?: true;
  /** Of `outgoing`, and of `ended` unless that is a duplicate: rows of OUTGOING. */
  readonly outgoing?: readonly (readonly Param[])[];
}

/** Columns of `accepted`; `day` last. */
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
  'day',
] as const;

/** What an interrupted turn takes over of an accepted one, behind the key: the first columns of `accepted`. */
export const RESUMED = ACCEPTED.slice(0, 6);

/** Columns of `ended`: what changes, then the key. */
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
  'tenant_id',
  'task_id',
] as const;

export function encodeAccepted(write: Extract<Write, { type: 'turn-accepted' }>): EncodedWrite {
  const { turn, message, day, resumable: again } = write;
  const unsafe = needsEscape(message.content);
  return {
    kind: 'accepted',
    ...(again ? { again } : {}),
    params: [
      turn.tenantId,
      turn.taskId,
      turn.sessionId,
      turn.agentId,
      turn.agentVersion ?? null,
      turn.status,
      turn.createdAtMs,
      unsafe ? escaped(message.content) : message.content,
      message.atMs,
      unsafe ? FLAG.askedEscaped : 0,
      day,
    ],
  };
}

/** `nowMs`: when its outgoing messages are kept. */
export function encodeEnded(write: Extract<Write, { type: 'turn-ended' }>, nowMs: number): EncodedWrite {
  const { turn, message, outgoing, unrun } = write;
  const end = encodedEnd(turn, message);
  return {
    kind: 'ended',
    ...(outgoing?.length ? { outgoing: outgoing.map((each) => encodeOutgoing(each, nowMs)) } : {}),
    params: [
      turn.status,
      turn.agentId,
      turn.agentVersion ?? null,
      turn.finishedAtMs ?? null,
      end.content,
      end.answer,
      message?.atMs ?? null,
      unrun ? end.flags | FLAG.unrun : end.flags,
      turn.info === undefined ? null : JSON.stringify(turn.info),
      turn.error === undefined ? null : JSON.stringify(turn.error),
      turn.tenantId,
      turn.taskId,
    ],
  };
}

/** The turn's content and its answer, which are nearly always one text: then it is stored once. */
export function encodedEnd(
  turn: TurnRecord,
  message: Message | undefined,
): { readonly content: string | null; readonly answer: string | null; readonly flags: number } {
  let flags = 0;
  let answer: string | null = null;
  if (message) {
    const unsafe = needsEscape(message.content);
    answer = unsafe ? escaped(message.content) : message.content;
    if (unsafe) flags |= FLAG.answerEscaped;
    if (turn.content === message.content)
      return { content: null, answer, flags: flags | FLAG.contentIsAnswer };
  }
  if (turn.content === undefined) return { content: null, answer, flags };
  if (!needsEscape(turn.content)) return { content: turn.content, answer, flags };
  return { content: escaped(turn.content), answer, flags: flags | FLAG.contentEscaped };
}

/** UTF-16 units of the texts of a write, and something for the rest: for the bounds of the queue. */
export function sizeOf({ params, outgoing }: EncodedWrite): number {
  let size = sizeOfRow(params);
  for (const row of outgoing ?? []) size += sizeOfRow(row);
  return size;
}

function sizeOfRow(params: readonly Param[]): number {
  let size = 0;
  for (const param of params) size += typeof param === 'string' ? param.length : 8;
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
  const asked: Message = {
    role: 'user',
    content: unescaped(row.asked, (row.flags & FLAG.askedEscaped) !== 0),
    taskId,
    atMs: row.asked_at,
  };
  const content = answerOf(row);
  if (content === undefined || row.answered_at === null) return [asked];
  return [asked, { role: 'assistant', content, taskId, atMs: row.answered_at }];
}

/** A message as its row; `atMs`: when it is kept. Throws a TypeError where JSON or an id can not hold it. */
export function encodeOutgoing(outgoing: Outgoing, atMs: number): readonly Param[] {
  checkOutgoing(outgoing);
  const { tenantId, id, answers, queue, format, action } = outgoing;
  const body = action === undefined ? null : JSON.stringify(action);
  return [tenantId, id, answers ?? null, queue ?? null, format, body, atMs, queue === undefined ? 0 : 1];
}

export type OutgoingRow = Omit<Selectable<OutgoingTable>, 'created_at' | 'unsent'>;
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
