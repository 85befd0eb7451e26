/**
 * A turn in its session, from what is said to its one terminal event: a union of phases.
 * Received and admitted (`admitting`), stored and waiting (`queued`), `running`, ended and stored (`ending`). One that
 * is taken back while it runs is `withdrawn`: nothing of it may be seen.
 */
import type { AgentConfig } from '../../src/domain/agent.ts';
import type { Message } from '../../src/domain/conversation.ts';
import { cut } from '../../src/domain/cut.ts';
import { defined } from '../../src/domain/defined.ts';
import type { ErrorData } from '../../src/domain/errors.ts';
import { type ExecutionInfo, MAX_REASONING_UNITS, type Notice } from '../../src/domain/frames.ts';
import {
  type AgentId,
  DEFAULT_AGENT_ID,
  type SessionId,
  type TaskId,
  type TenantId,
} from '../../src/domain/ids.ts';
import { marked } from '../../src/domain/images.ts';
import type { CancelReply, SayReply, TurnEnd, TurnRecord, TurnRequest } from '../../src/domain/turn.ts';
import { failedEnd } from '../../src/domain/turn.ts';
import type { ExecutionEvent, ExecutionOutcome } from '../../src/ports/runner.ts';
import type { Epoch } from '../../src/ports/store.ts';
import type { ReplyTo } from '../runtime/actor.ts';
import type { Slot } from '../tenant/protocol.ts';

/** What a turn has in every phase. */
interface TurnBase {
  readonly taskId: TaskId;
  /** By which its session was owned as it was said. */
  readonly epoch: Epoch;
  /** The first caller's number, as `TurnAttempt.attempt`. */
  readonly attempt: ReplyTo<SayReply>;
  readonly agentId: AgentId;
  readonly request: TurnRequest;
  readonly arrival: number;
  /** What was said; the store and the history share this record. */
  readonly said: Message;
  /** Those who wait to hear whether it was accepted. */
  readonly callers: readonly { readonly replyTo: ReplyTo<SayReply>; readonly duplicate: boolean }[];
  readonly cancellers: readonly { readonly replyTo: ReplyTo<CancelReply>; readonly atMs: number }[];
  /** Turns ahead, as the client was last told. */
  readonly position: number;
  /** A turn that was accepted later runs before it: the conversation has the order in which turns ran. */
  readonly overtaken: boolean;
  /** When somebody first wanted it stopped. */
  readonly stopAtMs: number | null;
}

/** Its agent is looked up, then its tenant asked to admit it; nobody has heard of it. */
export interface Admitting extends TurnBase {
  readonly phase: 'admitting';
  readonly admission: 'none' | 'requested' | 'granted';
  readonly slot: Slot;
  readonly agent: AgentConfig | null;
}

/** Admitted. `stored`: the store holds it and `chat.accepted` is out. Without an agent it is being looked up anew. */
export interface Queued extends TurnBase {
  readonly phase: 'queued';
  readonly stored: boolean;
  readonly slot: Slot;
  readonly agent: AgentConfig | null;
}

/** Its execution runs, on a slot of its own. */
export interface Running extends TurnBase {
  readonly phase: 'running';
  readonly stored: boolean;
  readonly agent: AgentConfig;
}

/** It has ended and holds no slot; clients hear of the end once the store holds it. */
export interface Ending extends TurnBase {
  readonly phase: 'ending';
  readonly stored: boolean;
  readonly agent: AgentConfig | null;
  /** Whether a model was asked: what never ran is no part of the conversation. */
  readonly ran: boolean;
  readonly end: TurnEnd;
  readonly endedAtMs: number;
  /** The end is being stored. */
  readonly writing: boolean;
}

/** Taken back while its execution ran: it waits for that to stop, and gives its slot back then. */
interface Withdrawn extends TurnBase {
  readonly phase: 'withdrawn';
  readonly agent: AgentConfig;
}

export type Turn = Admitting | Queued | Running | Ending | Withdrawn;

/** What a request becomes when its session takes it up. */
export const newTurn = (
  request: TurnRequest,
  {
    arrival,
    replyTo,
    atMs,
  }: { readonly arrival: number; readonly replyTo: ReplyTo<SayReply>; readonly atMs: number },
  epoch: Epoch,
): Admitting => ({
  phase: 'admitting',
  taskId: request.taskId,
  epoch,
  attempt: replyTo,
  agentId: request.agentId ?? DEFAULT_AGENT_ID,
  request,
  arrival,
  said: { role: 'user', content: marked(request.message, request.images), taskId: request.taskId, atMs },
  callers: [{ replyTo, duplicate: false }],
  cancellers: [],
  position: 0,
  overtaken: false,
  stopAtMs: null,
  admission: 'none',
  slot: 'none',
  agent: null,
});

/** Whether the store holds it, so that clients have heard of it. */
export const isStored = (turn: Turn): boolean => 'stored' in turn && turn.stored;

/**
 * Whether only the store can say that it is new: the client chose its id, or it may go on from an earlier process. One
 * whose id the node made may run while the store still writes.
 */
export const mayBeKnown = ({ request }: Turn): boolean => request.taskIdGiven || request.resumable === true;

/** How an execution's outcome ends its turn; `text` is what the clients were given. */
export function endOf(outcome: ExecutionOutcome, { text, reasoning }: TurnText): TurnEnd {
  const { info } = outcome;
  const thought = defined({ reasoning });
  if (outcome.type === 'answered') return { status: 'completed', content: outcome.content, info, ...thought };
  if (outcome.type === 'failed') return { ...failedEnd(outcome.error, info, text), ...thought };
  return { status: 'cancelled', content: text, info, ...thought };
}

/** The end of a turn that was stopped before it ran. */
export const UNRUN: TurnEnd = { status: 'cancelled', content: '' };

/** The end of a turn whose execution reported nothing. `written`: what its clients were given by then. */
export const lostEnd = (turn: Turn, error: ErrorData, written: TurnText = { text: '' }): TurnEnd => ({
  ...failedEnd(error, infoOf(turn), written.text),
  ...defined({ reasoning: written.reasoning }),
});

const infoOf = (turn: Turn): ExecutionInfo => ({
  execution_time_ms: 0,
  time_to_first_token_ms: null,
  iterations: 0,
  tools_used: [],
  tokens_used: 0,
  model: ('agent' in turn && turn.agent?.model) || 'none',
});

/** What the conversation holds of an end; nothing where there was no answer. Of one that failed it is shown, not read. */
export function answerOf({ end, endedAtMs, taskId }: Ending): Message | undefined {
  const { status, content = '', error } = end;
  if (status !== 'completed' && content === '') return undefined;
  const answer: Message = { role: 'assistant', content, taskId, atMs: endedAtMs };
  return error ? { ...answer, partial: true } : answer;
}

/** A turn as the status routes show it while it lives here: an end is told once the store holds it. */
export function recordOf(turn: Turn, tenantId: TenantId, sessionId: SessionId): TurnRecord {
  const { taskId, agentId, said } = turn;
  const ran = turn.phase === 'running' || turn.phase === 'withdrawn' || (turn.phase === 'ending' && turn.ran);
  return {
    taskId,
    tenantId,
    sessionId,
    agentId,
    ...(ran && turn.agent ? { agentVersion: turn.agent.version } : {}),
    status: ran ? 'processing' : 'queued',
    createdAtMs: said.atMs,
  };
}

/** A turn with its end, as the store holds it. */
export const endedRecord = (turn: Ending, tenantId: TenantId, sessionId: SessionId): TurnRecord => ({
  ...recordOf(turn, tenantId, sessionId),
  finishedAtMs: turn.endedAtMs,
  ...turn.end,
});

// --- What its execution writes: kept as it comes, and turned into what clients are told ---

/** What a turn's execution has written: the answer so far, and, where there is any, its reasoning up to a bound. */
export interface TurnText {
  readonly text: string;
  readonly reasoning?: string;
}

/** What has been written of an open turn. */
export interface OpenText {
  text: string;
  /** Bounded only where it is read. */
  reasoning: string;
  /** How much of the reasoning came before the attempt of the model under way. */
  standing: number;
}

export type ReasoningNotice = Extract<Notice, { type: 'chat.reasoning' }>;

/** What an execution tells, as it goes on to clients. */
export type ToldEvent =
  | Exclude<ExecutionEvent, { type: 'chat.reasoning' | 'reasoning.dropped' }>
  | ReasoningNotice;

/**
 * The text without the first half of a character whose other half has not come yet. Models may cut a surrogate
 * pair in two; a half by itself is no UTF-8, and only some clients put the halves together again.
 */
export function wellEnded(text: string): string {
  const unit = text.charCodeAt(text.length - 1);
  return unit >= 0xd800 && unit <= 0xdbff ? text.slice(0, -1) : text;
}

export const bounded = (reasoning: string): string => cut(reasoning, MAX_REASONING_UNITS).toWellFormed();

/**
 * Adds an event to what the turn has written. Returns it as it goes on. Each call of the model thinks in a paragraph of
 * its own; an attempt that failed leaves nothing of it.
 */
export function noted(turn: OpenText, event: ExecutionEvent): ToldEvent {
  switch (event.type) {
    case 'chat.delta':
      turn.text += event.data.content;
      return event;
    case 'chat.reasoning': {
      if (event.isFirst) turn.standing = turn.reasoning.length;
      const isApart = event.isFirst === true && turn.reasoning !== '';
      const content = isApart ? `\n\n${event.data.content}` : event.data.content;
      if (turn.reasoning.length < MAX_REASONING_UNITS) turn.reasoning += content;
      return { type: event.type, data: { content } };
    }
    case 'reasoning.dropped':
      turn.reasoning = turn.reasoning.slice(0, turn.standing);
      return { type: 'chat.reasoning', data: { content: bounded(turn.reasoning), replace: true } };
    default:
      return event;
  }
}
