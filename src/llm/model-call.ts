/** One call of a chat model within a run: asked with retries, told as it comes, and counted. */
import { setTimeout as delay } from 'node:timers/promises';
import type { BaseMessage } from '@langchain/core/messages';
import { estimateTokens } from '../domain/conversation.ts';
import { defined } from '../domain/defined.ts';
import { type RefusalError, refusalError } from '../domain/errors.ts';
import type { FinishReason } from '../domain/frames.ts';
import type { CallCounts } from '../ports/runner.ts';
import type { Log, Metrics } from '../ports/telemetry.ts';
import type { ChatModel } from './chat-model.ts';
import type { Answer, AnswerSink, Thoughts } from './completions/answer.ts';
import { classify, type ModelFailure, silentModel } from './model-errors.ts';
import { type ModelCall, modelCallFailed, type Run } from './run.ts';
import { closeCalls, type OpenCall, type ToolCall } from './tool-calls.ts';
import type { ToolDefinition } from './tools/tool.ts';
import { traceCall } from './tracing.ts';

const MAX_RETRIES = 2;
/** First wait without a Retry-After; the second is twice as long. Half of it is jitter. */
const RETRY_BASE_MS = 500;
/** Above this many characters a token, a model plainly ignores max_tokens, and its answer is cut off. */
const MAX_UNITS_PER_TOKEN = 16;

export interface ModelAnswer {
  readonly text: string;
  readonly calls: readonly ToolCall[];
  /** To go back with the calls. */
  readonly thoughts: Thoughts | undefined;
  readonly counts: CallCounts;
}

export interface ModelCallDependencies {
  readonly metrics: Metrics;
  readonly log: Log;
}

export interface ModelQuestion {
  /** The agent's model, then those that stand in for it. */
  readonly models: readonly [ChatModel, ...ChatModel[]];
  readonly messages: readonly BaseMessage[];
  readonly tools: readonly ToolDefinition[];
  /** Whether an answer without text and calls is one. */
  readonly mayBeEmpty: boolean;
  /** Told of each piece of text; in place of LangChain's tracers, where those hear of the call from elsewhere. */
  readonly onText?: (text: string) => void;
}

/**
 * Asks for one answer. Text goes out as `chat.delta` in the tick in which it arrives; once any has, nothing is asked
 * again. Throws a RefusalError: MODEL_* for what the endpoint did, TIER_LIMIT past the run's tokens.
 */
export async function callModel(
  run: Run,
  question: ModelQuestion,
  dependencies: ModelCallDependencies,
): Promise<ModelAnswer> {
  const { messages, tools } = question;
  const call = run.callStarted();
  const { answer, model } = await askWithRetries(run, call, question, dependencies);
  run.callRead();
  return {
    text: answer.text,
    calls: closeCalls(
      answer.calls,
      messages.length,
      tools.map((tool) => tool.function.name),
    ),
    thoughts: answer.thoughts,
    counts: countsOf(answer, () => model.estimate(messages)),
  };
}

/**
 * Nothing is asked again once text was shown. Before, models are asked in turn, those that stand in at once; when all
 * have failed, the first again after a while.
 */
async function askWithRetries(
  run: Run,
  call: ModelCall,
  question: ModelQuestion,
  { metrics, log }: ModelCallDependencies,
): Promise<{ readonly answer: Answer; readonly model: ChatModel }> {
  const { models } = question;
  for (let attempt = 1; ; attempt += 1) {
    const place = (attempt - 1) % models.length;
    const model = models[place] ?? models[0];
    const next = models[place + 1];
    call.asked = { provider: model.provider, model: model.model, host: model.host };
    try {
      return { model, answer: await traced(run, call, model, question, next !== undefined) };
    } catch (error) {
      const failure = classify(error);
      if (run.over) throw failure;
      modelCallFailed(log, run.plan, fieldsOf(model, failure, attempt));
      if (call.text !== '') throw failure;
      if (next && standsInFor(failure)) again(run, call);
      else if (failure.transient && attempt < Math.max(MAX_RETRIES + 1, models.length)) {
        await pause(run, call, failure, Math.ceil(attempt / models.length));
        again(run, call);
      } else throw failure;
      metrics.modelRetried(model.provider, failure.reason);
    }
  }
}

/** Another attempt begins: what the one before it thought goes. */
function again(run: Run, call: ModelCall): void {
  if (call.thoughtUnits > 0) run.emit({ type: 'reasoning.dropped' });
  call.thoughtUnits = 0;
}

/** Another model may do better where this one is away, limited, slow, or has no key that is good. */
const standsInFor = ({ data, transient }: ModelFailure): boolean =>
  transient || data.code === 'MODEL_UNAVAILABLE' || data.code === 'MODEL_RATE_LIMITED';

/** One attempt, and what tracers hear of it. */
async function traced(
  run: Run,
  call: ModelCall,
  model: ChatModel,
  question: ModelQuestion,
  hasNext: boolean,
): Promise<Answer> {
  const { messages, tools, onText } = question;
  const trace = onText ? undefined : traceCall(model, messages, tools);
  const sink = sinkOf(run, call, onText ?? trace?.token);
  try {
    const answer = await askOne(run, call, model, question, sink, hasNext);
    trace?.ended(answer);
    return answer;
  } catch (error) {
    trace?.failed(error);
    throw error;
  }
}

/** One attempt. One that does not begin in time is given up for the next model, where there is one. */
async function askOne(
  run: Run,
  call: ModelCall,
  model: ChatModel,
  { messages, tools, mayBeEmpty }: ModelQuestion,
  sink: AnswerSink,
  hasNext: boolean,
): Promise<Answer> {
  const { responseFormat: format, limits, tenantId } = run.plan;
  const request = { messages, tools, mayBeEmpty, format, budgetTokens: limits.maxTokens, tenantId };
  if (!hasNext) return model.ask({ ...request, signal: run.signal }, sink);
  const attempt = new AbortController();
  call.giveUp = () => attempt.abort(silentModel());
  try {
    return await model.ask({ ...request, signal: AbortSignal.any([run.signal, attempt.signal]) }, sink);
  } finally {
    call.giveUp = undefined;
  }
}

/** What becomes of an answer's pieces. */
function sinkOf(run: Run, call: ModelCall, onText: ((text: string) => void) | undefined): AnswerSink {
  const maxUnits = run.answerTokens * MAX_UNITS_PER_TOKEN;
  const bounded = (units: number): void => {
    if (units > maxUnits) throw tooLong(run.answerTokens);
  };
  return {
    onChunk() {
      call.chunks += 1;
    },
    onText(text) {
      call.text += text;
      run.emit({ type: 'chat.delta', data: { content: text } });
      onText?.(text);
      bounded(call.text.length);
    },
    onReasoning(text) {
      run.emit({ type: 'chat.reasoning', data: { content: text }, isFirst: call.thoughtUnits === 0 });
      call.thoughtUnits += text.length;
      bounded(call.thoughtUnits);
    },
    onAgain: () => again(run, call),
  };
}

/** What the log has of a failure. */
function fieldsOf(
  { provider, model, host }: ChatModel,
  { diagnosis, data }: ModelFailure,
  attempt: number,
): object {
  const { reason, status, providerCode, contentType, finish } = diagnosis;
  const said = { http_status: status, provider_code: providerCode, content_type: contentType, finish };
  return { provider, model, host, reason, ...said, code: data.code, attempt };
}

/** Waits as long as the provider asked, or longer with each attempt. Gives up at once where the run would end first. */
async function pause(run: Run, call: ModelCall, failure: ModelFailure, attempt: number): Promise<void> {
  const base = failure.retryAfterMs ?? RETRY_BASE_MS * attempt;
  // Never earlier than asked: jitter comes on top, or everyone who was refused returns at the same moment.
  const jitter = Math.random() * Math.min(RETRY_BASE_MS, Math.max(base, 10)) * 0.5;
  const waitMs = base + jitter;
  if (waitMs >= run.remainingMs()) throw failure;
  call.paused = true;
  await delay(waitMs, undefined, { signal: run.signal });
  call.paused = false;
}

/** `estimate`: tokens of what the model was given. An answer with calls asks for tools, whatever its last word was. */
function countsOf({ text, calls, usage, finish }: Answer, estimate: () => number): CallCounts {
  const last: FinishReason = calls.length > 0 ? 'tool_calls' : 'stop';
  return defined({
    tokens: usage?.total ?? estimate() + estimateAnswer(text, calls),
    inputTokens: usage?.input,
    outputTokens: usage?.output,
    finish: finish === 'length' ? finish : last,
  });
}

function estimateAnswer(text: string, calls: readonly OpenCall[]): number {
  let tokens = text === '' ? 0 : estimateTokens(text);
  for (const { args } of calls) tokens += estimateTokens(args);
  return tokens;
}

const tooLong = (maxTokens: number): RefusalError =>
  refusalError('TIER_LIMIT', {
    message: `The model wrote far more than the ${maxTokens} tokens it was allowed.`,
    details: { limit: 'tokens_per_run', max: maxTokens },
  });
