/** Ids that come out alike each time the same thing is done, so that what came of it is found again. */
import { createHash } from 'node:crypto';
import { type SessionId, sessionIdSchema, type TaskId, taskIdSchema } from './ids.ts';

const MAX_ID = 128;
/** Hex digits that stand for an id too long to be extended. */
const DIGITS = 40;

const digest = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, DIGITS);

/** `{id}:{name}`, an id again: where that is too long, a digest stands for `id`. `name` is short. */
export const derivedId = (id: string, name: string): string =>
  id.length + name.length < MAX_ID ? `${id}:${name}` : `${digest(id)}:${name}`;

/** A uuid (version 8: of one's own making) that stands for these words. */
export function derivedUuid(...words: readonly string[]): string {
  const hex = createHash('sha256').update(JSON.stringify(words)).digest('hex');
  const variant = ((Number.parseInt(hex.charAt(16), 16) & 3) | 8).toString(16);
  const parts = [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`];
  return [...parts, `${variant}${hex.slice(17, 20)}`, hex.slice(20, 32)].join('-');
}

/** The `action_id` of a reply; `name` tells apart the replies to one action. */
export const replyId = (tenantId: string, actionId: string, name: string): string =>
  derivedUuid('reply', tenantId, actionId, name);

/** The session of a task that names none: one of its own, the same whenever the task comes again. */
export const ownSession = (taskId: TaskId): SessionId =>
  sessionIdSchema.parse(`execution-${taskId.length <= MAX_ID - 10 ? taskId : digest(taskId)}`);

/** The task of a batch's item that names none. */
export const itemTask = (taskId: TaskId, index: number): TaskId =>
  taskIdSchema.parse(derivedId(taskId, String(index)));
