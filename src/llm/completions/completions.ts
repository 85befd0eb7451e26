/** A chat model behind an endpoint that speaks chat completions, or almost: asked by HTTP, and asked again where that helps. */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../ports/telemetry.ts';
import type { ChatModel, ModelRequest } from '../chat-model.ts';
import { ModelFailure, refusedByStatus, tooLongForModel } from '../model-errors.ts';
import type { Answer, AnswerSink } from './answer.ts';
import { type BodySpec, createBodyBuilder } from './body.ts';
import type { Connections } from './connections.ts';
import { createGauge, fitted, type Gauge } from './gauge.ts';
import { adapted, type Habits, learnt, type Remedy, remedyFor } from './remedies.ts';
import { ask, type HttpRefusal } from './request.ts';
import type { ThinkTags } from './think-tags.ts';

/** Where requests go, and what they carry. */
export interface Endpoint {
  /** The address of the completions themselves, with its query. */
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** What is known of it beforehand. */
  readonly habits: Habits;
  readonly thinkTags: ThinkTags;
}

export interface CompletionsOptions {
  readonly provider: string;
  readonly endpoint: Endpoint;
  readonly spec: BodySpec;
  readonly connections: Connections;
  readonly memory: EndpointMemory;
  readonly clock: Clock;
}

/** Times that one answer is asked for otherwise: each remedy helps against one kind of refusal. */
const MAX_REMEDIES = 4;
/** What a prompt that was too long is cut to where the endpoint does not say how much fits. */
const SHORTER = 0.5;
/** Of a window, what the estimate may fill. */
const FILL = 0.95;
/** Of a window, what is left for the answer; at most so many tokens. */
const ANSWER_SHARE = 0.25;
const MAX_ANSWER_ROOM = 4_096;
/** Models of which something was learnt. */
const MAX_REMEMBERED = 2_000;

interface Remembered {
  readonly gauge: Gauge;
  habits: Habits;
}

/** What was learnt of models, for all who use them. */
export type EndpointMemory = LRUCache<string, Remembered>;

export const createEndpointMemory = (): EndpointMemory => new LRUCache({ max: MAX_REMEMBERED });

export function createCompletions(options: CompletionsOptions): ChatModel {
  const { provider, endpoint, spec, connections, memory, clock } = options;
  const builder = createBodyBuilder(spec);
  const key = `${provider} ${endpoint.url.href} ${spec.model}`;
  const remembered = (): Remembered => {
    const known = memory.get(key);
    if (known) return known;
    const fresh = { gauge: createGauge(), habits: endpoint.habits };
    memory.set(key, fresh);
    return fresh;
  };

  /** One request. A refusal that may be mended comes with what it says. */
  async function attempt(
    { tools, format, signal, mayBeEmpty, tenantId }: ModelRequest,
    messages: ModelRequest['messages'],
    habits: Habits,
    sink: AnswerSink,
  ): Promise<Answer | { failure: ModelFailure; remedy: Remedy | undefined }> {
    const body = adapted(builder.build(messages, tools, format), habits);
    try {
      const asked = await ask(
        {
          connections,
          tenantId,
          signal,
          mayBeEmpty,
          url: endpoint.url,
          headers: endpoint.headers,
          thinkTags: endpoint.thinkTags,
          body: JSON.stringify(body),
        },
        sink,
      );
      if (asked.type === 'answer') return asked.answer;
      const { status, text } = asked.refusal;
      return { failure: refused(asked.refusal, clock.now()), remedy: remedyFor(status, text, body) };
    } catch (error) {
      if (!(error instanceof ModelFailure) || error.said === undefined) throw error;
      return { failure: error, remedy: remedyFor(Number(error.reason), error.said, body) };
    }
  }

  return {
    provider,
    model: spec.model,
    host: endpoint.url.host,
    estimate: (messages) => remembered().gauge.estimate(messages),
    async ask(request, sink) {
      const known = remembered();
      let messages = fitted(request.messages, promptRoom(request, known.habits, spec), known.gauge);
      let answerTokens = Number.POSITIVE_INFINITY;
      let { habits } = known;
      const applied: Remedy[] = [];
      for (let remedies = 0; ; remedies += 1) {
        const room = Math.min(answerTokens, habits.answerTokens ?? Number.POSITIVE_INFINITY);
        const result = await attempt(request, messages, { ...habits, answerTokens: room }, sink);
        if (!('failure' in result)) {
          if (result.usage?.input) known.gauge.learn(messages, result.usage.input);
          // What has helped is remembered; what has not was a wrong guess.
          known.habits = applied.reduce(learnt, known.habits);
          return result;
        }
        const { failure, remedy } = result;
        if (!remedy || remedies >= MAX_REMEDIES) throw failure;
        sink.onAgain();
        applied.push(remedy);
        habits = learnt(habits, remedy);
        if (remedy.type === 'room') answerTokens = remedy.tokens;
        if (remedy.type !== 'shorter') continue;
        const half = Math.min(promptRoom(request, habits, spec), known.gauge.estimate(messages) * SHORTER);
        const shorter = fitted(messages, half, known.gauge);
        if (shorter.length === messages.length) throw tooLongForModel();
        messages = shorter;
      }
    },
  };
}

/** Tokens that the prompt may have: what budget and window leave beside the answer. */
function promptRoom({ budgetTokens }: ModelRequest, { window }: Habits, { maxTokens }: BodySpec): number {
  const all = Math.min(budgetTokens, (window ?? Number.POSITIVE_INFINITY) * FILL);
  const answer = Math.min(maxTokens ?? Number.POSITIVE_INFINITY, all * ANSWER_SHARE, MAX_ANSWER_ROOM);
  return all - answer;
}

function refused({ status, headers, text }: HttpRefusal, nowMs: number): ModelFailure {
  const header = (name: string): string | undefined => {
    const value = headers[name];
    return Array.isArray(value) ? value[0] : value;
  };
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    body = undefined;
  }
  return refusedByStatus({ status, header, body }, nowMs);
}
