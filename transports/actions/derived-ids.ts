/** Ids that come out alike each time the same action is worked on, so that what is done for it is found again. */
import { createHash } from 'node:crypto';
import { type SessionId, sessionIdSchema, type TaskId, taskIdSchema } from '../../src/domain/ids.ts';

const MAX_ID = 128;
/** Hex digits that stand for an id too long to be extended. */
const DIGITS = 40;

const digest = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, DIGITS);

/** `{id}:{name}`, an id again: where that is too long, a digest stands for `id`. `name` is short. */
export const derivedId = (id: string, name: string): string =>
  id.length + name.length < MAX_ID ? `${id}:${name}` : `${digest(id)}:${name}`;

/** The session of a task that names none: one of its own, the same whenever the task comes again. */
export const ownSession = (taskId: TaskId): SessionId =>
  sessionIdSchema.parse(`execution-${taskId.length <= MAX_ID - 10 ? taskId : digest(taskId)}`);

/** The task of a batch's item that names none. */
export const itemTask = (taskId: TaskId, index: number): TaskId =>
  taskIdSchema.parse(derivedId(taskId, String(index)));
