/** What the tests of actors share: ids, a clock that is set by hand, things to say, and a session that is told them. */
import type {
  Said,
  SessionConfig,
  SessionEffect,
  SessionMessage,
  SessionState,
} from '../../actors/session/protocol.ts';
import { session } from '../../actors/session/session.ts';
import type { AgentConfig } from '../../src/domain/agent.ts';
import type { ErrorData } from '../../src/domain/errors.ts';
import type { ExecutionInfo, Frame } from '../../src/domain/frames.ts';
import {
  agentIdSchema,
  DEFAULT_AGENT_ID,
  type SessionId,
  sessionIdSchema,
  type TaskId,
  type TenantId,
  taskIdSchema,
  tenantIdSchema,
} from '../../src/domain/ids.ts';
import { TIER_TABLE } from '../../src/domain/tiers.ts';
import type { TurnRequest } from '../../src/domain/turn.ts';
import type { ExecutionOutcome, ExecutionPlan, RunOutcome } from '../../src/ports/runner.ts';
import type { Client } from '../../src/ports/sessions.ts';
import type { Clock } from '../../src/ports/telemetry.ts';

export const TENANT: TenantId = tenantIdSchema.parse('acme');
export const SESSION: SessionId = sessionIdSchema.parse('s1');
export const taskId = (id: string): TaskId => taskIdSchema.parse(id);
export const sessionId = (id: string): SessionId => sessionIdSchema.parse(id);
export const tenantId = (id: string): TenantId => tenantIdSchema.parse(id);
export const OTHER_AGENT = agentIdSchema.parse('other');

export interface HandClock extends Clock {
  nowMs: number;
}

export function handClock(nowMs = 1_000): HandClock {
  return {
    nowMs,
    now() {
      return this.nowMs;
    },
  };
}

export const AGENT: AgentConfig = {
  id: DEFAULT_AGENT_ID,
  version: 1,
  type: 'conversational',
  provider: 'offline',
  model: 'offline-echo',
  temperature: 0,
  maxTokens: null,
  systemPrompt: 'Be kind.',
  tools: ['current_time', 'calculator'],
  maxIterations: null,
  isActive: true,
};

export const CONFIG: SessionConfig = {
  tiers: TIER_TABLE,
  requestsPerHour: null,
  maxIterations: undefined,
  maxTimeMs: undefined,
};

/** A plan of the turn `t`. */
export const PLAN: ExecutionPlan = {
  taskId: taskId('t'),
  tenantId: TENANT,
  sessionId: SESSION,
  tier: 'free',
  agent: AGENT,
  history: [],
  context: {},
  limits: { timeoutMs: 1_000, maxIterations: 3, maxTokens: 100, tools: [] },
};

export const INFO: ExecutionInfo = {
  execution_time_ms: 5,
  time_to_first_token_ms: 1,
  iterations: 1,
  tools_used: [],
  tokens_used: 7,
  finish_reason: 'stop',
  model: 'offline-echo',
};

/** How a run ends that has used as much as INFO says. */
export const ranTo = (content: string): RunOutcome => ({
  type: 'answered',
  content,
  counts: { tokens: INFO.tokens_used, finish: 'stop' },
});
export const answered = (content: string): ExecutionOutcome => ({ type: 'answered', content, info: INFO });
export const aborted: ExecutionOutcome = { type: 'aborted', info: INFO };
export const failed = (error: ErrorData): Extract<ExecutionOutcome, { type: 'failed' }> => ({
  type: 'failed',
  error,
  info: INFO,
});

/** A request of `TENANT` in `SESSION`, of this task id. */
export const turnRequest = (id: string, more: Partial<TurnRequest> = {}): TurnRequest => ({
  caller: { tenantId: TENANT, tier: undefined, userId: undefined },
  sessionId: SESSION,
  taskId: taskId(id),
  taskIdGiven: false,
  agentId: undefined,
  message: `message ${id}`,
  context: {},
  stream: true,
  onBusy: 'enqueue',
  requestId: undefined,
  ...more,
});

/** Something said, as a session is told it: fields of the request, and those of the message itself. */
export const said = (
  id: string,
  {
    replyTo = 1,
    atMs = 10,
    arrival = 1,
    ...more
  }: Partial<TurnRequest & Pick<Said, 'replyTo' | 'atMs' | 'arrival'>> = {},
): Said => ({
  type: 'said',
  request: turnRequest(id, more),
  arrival,
  replyTo,
  atMs,
});

type EffectOf<T extends SessionEffect['type']> = Extract<SessionEffect, { type: T }>;

/** The effects of one type. */
export function only<T extends SessionEffect['type']>(
  effects: readonly SessionEffect[],
  type: T,
): readonly EffectOf<T>[] {
  return effects.filter((effect): effect is EffectOf<T> => effect.type === type);
}

/** Types of the events that effects publish, of one turn or of all. */
export const eventTypes = (effects: readonly SessionEffect[], id?: string): readonly string[] =>
  only(effects, 'event')
    .filter((effect) => id === undefined || effect.taskId === id)
    .map((effect) => effect.event.type);

export interface Listener extends Client {
  readonly frames: Frame[];
  readonly closes: number[];
}

/** A client that remembers what it was sent. */
export function listener(id: string, deltaWindowMs = 0): Listener {
  const frames: Frame[] = [];
  const closes: number[] = [];
  return {
    id,
    deltaWindowMs,
    frames,
    closes,
    send: (frame) => void (closes.length === 0 && frames.push(frame)),
    close: ({ code }) => void closes.push(code),
  };
}

type Step = readonly [SessionState, readonly SessionEffect[]];

/** What a session comes to over some messages, and all that it wants done. */
export function play(state: SessionState, ...messages: readonly SessionMessage[]): Step {
  const effects: SessionEffect[] = [];
  const end = messages.reduce((current, message) => {
    const [next, more] = session(current, message);
    effects.push(...more);
    return next;
  }, state);
  return [end, effects];
}
