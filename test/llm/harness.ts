/** What the tests of src/llm share: a runner over the stub, plans, and a record of what a run told. */
import assert from 'node:assert/strict';
import { setImmediate as nextLoopTurn } from 'node:timers/promises';
import { createExecutionEffects } from '../../actors/execution/effects.ts';
import { createActorSystem } from '../../actors/runtime/actor-system.ts';
import type { AgentConfig, AgentType } from '../../src/domain/agent.ts';
import type { Message } from '../../src/domain/conversation.ts';
import { agentIdSchema, sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import { configureProviders } from '../../src/domain/providers.ts';
import { createAnswerSchemas } from '../../src/llm/answer-schemas.ts';
import { createModels } from '../../src/llm/models.ts';
import { createAgentRunner } from '../../src/llm/runner.ts';
import type { Tool, ToolSet } from '../../src/llm/tools/tool.ts';
import { createTools } from '../../src/llm/tools/tool-set.ts';
import type {
  AgentRunner,
  ExecutionEvent,
  ExecutionLimits,
  ExecutionOutcome,
  ExecutionPlan,
} from '../../src/ports/runner.ts';
import type { Log, Metrics } from '../../src/ports/telemetry.ts';
import { stubSession } from '../actors/execution/session-stub.ts';
import { quiet } from '../support/quiet.ts';
import { type StubModel, startStubModel } from '../support/stub-model.ts';

export const clock = { now: () => Date.now() };
const taskId = taskIdSchema.parse('task-1');
const nothing = (): void => {};

/** Log and metrics that remember. */
function recorders() {
  const lines: string[] = [];
  const retried: string[] = [];
  const used: string[] = [];
  const line = (fields: object, text: string): void => {
    const err = 'err' in fields && fields.err instanceof Error ? fields.err.stack : undefined;
    lines.push(JSON.stringify({ ...fields, err, text }));
  };
  const log: Log = { debug: line, info: line, warn: line, error: line };
  const metrics: Metrics = {
    turnEnded: nothing,
    turnRefused: nothing,
    deadLetter: nothing,
    actorCrashed: nothing,
    toolUsed: (tool, ok) => void used.push(`${tool} ${ok}`),
    modelRetried: (provider, reason) => void retried.push(`${provider} ${reason}`),
    socketOpened: nothing,
    socketClosed: nothing,
  };
  return { lines, retried, used, log, metrics };
}

/** Sockets, timers and workers that hold the process open now, by kind. */
function held(): Map<string, number> {
  const counts = new Map<string, number>();
  for (const kind of process.getActiveResourcesInfo())
    if (/TCP|Timeout|Worker|MessagePort/.test(kind)) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
}

/** Fails unless all that was not held before is let go of within two seconds of loop turns. */
async function leavesNothing(before: ReadonlyMap<string, number>): Promise<void> {
  const until = performance.now() + 2_000;
  const extra = (): string[] =>
    [...held()].filter(([kind, count]) => count > (before.get(kind) ?? 0)).map(([kind]) => kind);
  while (extra().length > 0) {
    if (performance.now() > until) throw new Error(`left behind: ${extra().join(', ')}`);
    await nextLoopTurn();
  }
}

export interface Bench extends ReturnType<typeof recorders> {
  readonly stub: StubModel;
  readonly runner: AgentRunner;
  /** Starts a run; `done` is its outcome. */
  start(change?: PlanChange): Started;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface Started {
  readonly events: readonly ExecutionEvent[];
  readonly done: Promise<ExecutionOutcome>;
  readonly abort: () => void;
  /** Resolves at the first event of a type. */
  seen(type: ExecutionEvent['type']): Promise<ExecutionEvent>;
}

export interface PlanChange {
  readonly type?: AgentType;
  readonly agent?: Partial<AgentConfig>;
  readonly limits?: Partial<ExecutionLimits>;
  readonly message?: string;
  readonly history?: readonly Message[];
  readonly context?: Readonly<Record<string, unknown>>;
  readonly accepted?: Promise<unknown>;
  readonly effects?: () => Promise<void>;
  readonly onEvent?: (event: ExecutionEvent) => void;
}

export const userMessage = (content: string): Message => ({ role: 'user', content, taskId, atMs: 0 });

export function planOf(change: PlanChange = {}): ExecutionPlan {
  return {
    taskId,
    tenantId: tenantIdSchema.parse('acme'),
    sessionId: sessionIdSchema.parse('session-1'),
    tier: 'professional',
    agent: {
      id: agentIdSchema.parse('default'),
      version: 3,
      type: change.type ?? 'conversational',
      provider: 'openai',
      model: 'gpt-test-mini',
      temperature: 0.2,
      maxTokens: null,
      systemPrompt: 'Be brief.',
      tools: ['calculator', 'current_time'],
      maxIterations: null,
      isActive: true,
      ...change.agent,
    },
    history: change.history ?? [userMessage(change.message ?? 'canary-message')],
    context: change.context ?? {},
    limits: {
      timeoutMs: 10_000,
      maxIterations: 10,
      maxTokens: 1_000,
      tools: ['calculator', 'current_time'],
      ...change.limits,
    },
  };
}

/** Runs a plan in a real execution, under a session that only listens. */
export function execute(
  runner: AgentRunner,
  plan: ExecutionPlan,
): { done: Promise<ExecutionOutcome>; abort: () => void } {
  const actors = createActorSystem({ clock, log: quiet });
  let session: ReturnType<typeof stubSession> | undefined;
  const done = new Promise<ExecutionOutcome>((resolve, reject) => {
    session = stubSession(actors, clock, (message) => {
      if (message.type === 'ended') resolve(message.outcome);
      else reject(new Error(`the session was told ${message.type}`));
    });
  });
  const { ref, close } = session ?? assert.fail();
  const start = createExecutionEffects({
    actors,
    clock,
    runner,
    store: { commit: async () => 'stored' },
    registry: { session: () => ref },
  });
  start(ref, { type: 'execute', epoch: 1, plan, options: { stream: true, accepted: true } });
  const { execution } = ref;
  const ended = done.finally(async () => {
    close();
    await actors.close();
  });
  return {
    done: ended,
    abort() {
      execution?.abort.abort();
      if (execution) actors.tell(execution.address, { type: 'cancel' });
    },
  };
}

/** A runner whose OpenAI and Groq models live in a stub of its own. */
export async function startBench(
  options: {
    tools?: readonly Tool[];
    firstTokenTimeoutMs?: number;
    idleTimeoutMs?: number;
    breakerFailures?: number;
  } = {},
): Promise<Bench> {
  const before = held();
  const stub = await startStubModel();
  const records = recorders();
  const own = createTools({ clock });
  const tools: ToolSet = {
    tools: [...own.tools, ...(options.tools ?? [])],
    close: () => own.close(),
  };
  const runner = createAgentRunner({
    models: createModels(
      {
        providers: configureProviders(
          {
            OPENAI_API_KEY: 'sk-canary-key',
            OPENAI_BASE_URL: stub.baseUrl,
            GROQ_API_KEY: 'gsk-canary-key',
            GROQ_BASE_URL: stub.groqBaseUrl,
          },
          [],
        ).providers,
        breakerFailures: options.breakerFailures ?? 1_000,
      },
      clock,
    ),
    tools,
    schemas: createAnswerSchemas(),
    clock,
    metrics: records.metrics,
    log: records.log,
    timeouts: {
      firstTokenTimeoutMs: options.firstTokenTimeoutMs ?? 5_000,
      idleTimeoutMs: options.idleTimeoutMs ?? 5_000,
    },
  });
  return {
    ...records,
    stub,
    runner,
    start(change = {}) {
      const events: ExecutionEvent[] = [];
      const waiting: { type: string; resolve: (event: ExecutionEvent) => void }[] = [];
      const { done, abort } = execute(
        {
          ...runner,
          run: (plan, context) =>
            runner.run(plan, {
              ...context,
              accepted: change.accepted ?? Promise.resolve(),
              effects: change.effects ?? (async () => {}),
              emit(event) {
                context.emit(event);
                events.push(event);
                for (const { type, resolve } of waiting) if (type === event.type) resolve(event);
                change.onEvent?.(event);
              },
            }),
        },
        planOf(change),
      );
      return {
        events,
        done,
        abort,
        seen: (type) => {
          const known = events.find((event) => event.type === type);
          return known ? Promise.resolve(known) : new Promise((resolve) => waiting.push({ type, resolve }));
        },
      };
    },
    async [Symbol.asyncDispose]() {
      await runner.close();
      await stub.close();
      await leavesNothing(before);
    },
  };
}

export const deltasOf = (events: readonly ExecutionEvent[]): string =>
  events.map((event) => (event.type === 'chat.delta' ? event.data.content : '')).join('');

export const typesOf = (events: readonly ExecutionEvent[]): readonly string[] =>
  events.map((event) => event.type);

export const errorOf = (outcome: ExecutionOutcome) => {
  if (outcome.type !== 'failed') throw new Error(`expected a failure, got ${JSON.stringify(outcome)}`);
  return outcome.error;
};

export const answerOf = (outcome: ExecutionOutcome): string => {
  if (outcome.type !== 'answered') throw new Error(`expected an answer, got ${JSON.stringify(outcome)}`);
  return outcome.content;
};
