/** Turns as they are stored: accepted ones for commits, whole ones for sessions that are to be woken up. */
import type { Message } from '../../src/domain/conversation.ts';
import {
  agentIdSchema,
  type SessionId,
  sessionIdSchema,
  type TenantId,
  taskIdSchema,
  tenantIdSchema,
} from '../../src/domain/ids.ts';
import type { TurnRecord } from '../../src/domain/turn.ts';
import type { ArchivedTurn } from '../../src/ports/management.ts';
import type { Write } from '../../src/ports/store.ts';
import type { Log } from '../../src/ports/telemetry.ts';

export const TENANT = tenantIdSchema.parse('bench');
const AGENT = agentIdSchema.parse('default');
const DAY = '2024-05-01';
const QUESTION = 'Tell me about the harbour at dawn.';
/** As `offline-50x0` answers. */
const ANSWER = Array.from({ length: 50 }, (_, index) => `tok${index + 1} `).join('');

const nothing = (): void => {};
/** A bench hears of failures by rejections. */
export const SILENT: Log = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
};

export type AcceptedWrite = Extract<Write, { type: 'turn-accepted' }>;

/** Somebody who sends message after message to a session of a tenant of its own. */
export interface Sender {
  /** What is written when the next message is acknowledged. */
  next(): AcceptedWrite;
}

export function createSender(name: string): Sender {
  const tenantId = tenantIdSchema.parse(name);
  const sessionId = sessionIdSchema.parse('s');
  let sent = 0;
  return {
    next() {
      const { turn, messages } = storedTurn(tenantId, sessionId, `${name}-${sent}`, Date.now());
      sent += 1;
      const { taskId, agentId, createdAtMs } = turn;
      return {
        type: 'turn-accepted',
        turn: { taskId, tenantId, sessionId, agentId, status: 'processing', createdAtMs },
        message: messages[0],
        day: DAY,
      };
    },
  };
}

/** A conversation of that many messages: half of them questions, half answers. */
export function conversation(session: string, messages: number): readonly ArchivedTurn[] {
  const sessionId = sessionIdSchema.parse(session);
  const nowMs = Date.now();
  return Array.from({ length: messages / 2 }, (_, i) =>
    storedTurn(TENANT, sessionId, `${session}-${i}`, nowMs - 60_000 + i),
  );
}

function storedTurn(tenantId: TenantId, sessionId: SessionId, task: string, atMs: number) {
  const taskId = taskIdSchema.parse(task);
  const asked: Message = { role: 'user', content: QUESTION, taskId, atMs };
  const answer: Message = { role: 'assistant', content: ANSWER, taskId, atMs: atMs + 1 };
  const turn: TurnRecord = {
    taskId,
    tenantId,
    sessionId,
    agentId: AGENT,
    agentVersion: 0,
    status: 'completed',
    createdAtMs: atMs,
    finishedAtMs: atMs + 1,
    content: ANSWER,
    info: {
      execution_time_ms: 1,
      time_to_first_token_ms: 1,
      iterations: 1,
      tools_used: [],
      tokens_used: 60,
      model: 'offline-50x0',
    },
  };
  return { turn, messages: [asked, answer] as const };
}
