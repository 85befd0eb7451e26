/** What went wrong at a model's endpoint, by status and code alone: texts of providers can hold keys and messages. */
import { defined } from '../domain/defined.ts';
import { type ErrorCode, RefusalError, refusal } from '../domain/errors.ts';

/** What an operator is told of a failure; never what a model or a user said. */
export interface Diagnosis {
  /** For logs and metrics: the HTTP status, or what else it was. */
  readonly reason: string;
  readonly status?: number | undefined;
  readonly providerCode?: string | undefined;
  readonly contentType?: string | undefined;
  /** The word at the end of the answer. */
  readonly finish?: string | undefined;
}

/** An attempt that failed. */
export class ModelFailure extends RefusalError {
  /** A further attempt may help, as long as nothing of the answer was shown. */
  readonly transient: boolean;
  readonly retryAfterMs: number | undefined;
  readonly diagnosis: Diagnosis;
  /** What an error under 200 says, to find out what would help; never to be logged. */
  said: string | undefined;

  constructor(refused: RefusalError, diagnosis: Diagnosis, transient: boolean, retryAfterMs?: number) {
    super(refused.data);
    this.diagnosis = diagnosis;
    this.transient = transient;
    this.retryAfterMs = retryAfterMs;
  }

  get reason(): string {
    return this.diagnosis.reason;
  }
}

interface FailureOptions {
  readonly code: ErrorCode;
  readonly message?: string;
  readonly transient: boolean;
  /** Whether the client may send it again; by default what the code's table says, or that it is transient. */
  readonly retryable?: boolean;
  readonly retryAfterMs?: number | undefined;
  readonly details?: Readonly<Record<string, unknown>>;
}

function failure(diagnosis: Diagnosis, options: FailureOptions): ModelFailure {
  const { code, message, transient, retryAfterMs, details } = options;
  const more = defined({ status: diagnosis.status, provider_code: diagnosis.providerCode, ...details });
  const data = refusal(
    code,
    defined({ message, retryAfterMs, details: Object.keys(more).length > 0 ? more : undefined }),
  );
  const retryable = options.retryable ?? (data.retryable || transient);
  return new ModelFailure(new RefusalError({ ...data, retryable }), diagnosis, transient, retryAfterMs);
}

// --- What an endpoint says by its status ---------------------------------------------------------------------------

/** An answer that is none: its status, headers, and the parsed body where it is JSON. */
export interface Refused {
  readonly status: number;
  readonly header: (name: string) => string | undefined;
  readonly body: unknown;
}

/** UTF-16 units of an error that are looked at. */
const MAX_SAID_UNITS = 64_000;

/** Turns an HTTP error into a failure. `nowMs` is for Retry-After dates. */
export function refusedByStatus({ status, header, body }: Refused, nowMs: number): ModelFailure {
  const error = errorOf(body);
  const contentType = plainType(header('content-type'));
  const isToolless = NO_TOOLS.test(String(at(error, 'message') ?? error));
  const wait = parseRetryAfter(header, nowMs) ?? waitIn(error);
  return byStatus(status, codeOf(error), wait, { contentType, isToolless });
}

/** An error that came under 200: as if it had come by the status that its code or type stands for. */
export function errorUnder200(error: unknown): ModelFailure {
  const status = statusOf(error);
  const code = codeOf(error);
  const found = byStatus(status ?? 500, code, waitIn(error), { under: 200 });
  found.said = JSON.stringify(error).slice(0, MAX_SAID_UNITS);
  return found;
}

/** Statuses that say to come again: early, in conflict, out of time; out of capacity (Groq); given up (nginx). */
const AWAY: readonly number[] = [408, 409, 425, 498, 499];

function byStatus(
  status: number,
  providerCode: string | undefined,
  retryAfterMs: number | undefined,
  more: { contentType?: string | undefined; under?: number; isToolless?: boolean },
): ModelFailure {
  const { contentType } = more;
  const diagnosis = { reason: `${status}`, status: more.under ?? status, providerCode, contentType };
  const shown = [more.under ? undefined : `HTTP ${status}`, providerCode].filter(Boolean).join(', ');
  const behind = shown === '' ? '' : ` (${shown})`;
  if (status === 429 || status === 402 || providerCode === 'insufficient_quota') {
    // A spent quota stays spent, and so does an account.
    const isSpent = status === 402 || providerCode === 'insufficient_quota';
    const message = isSpent
      ? `The provider's account has nothing left to spend${behind}: the operator has to look at it.`
      : undefined;
    return failure(
      diagnosis,
      defined({ code: 'MODEL_RATE_LIMITED' as const, transient: !isSpent, retryAfterMs, message }),
    );
  }
  if (status >= 500 || AWAY.includes(status))
    return failure(diagnosis, {
      ...{ code: 'MODEL_UNAVAILABLE', transient: true, retryAfterMs },
      message: `The model provider failed${behind}.`,
    });
  // The endpoint could not read its own model's call: the next one may be better.
  const transient = providerCode === 'tool_use_failed';
  return failure(diagnosis, {
    code: 'MODEL_ERROR',
    transient,
    message: more.isToolless ? toolless(behind) : advice(status, behind),
  });
}

/** Ollama: `<model> does not support tools`; OpenRouter: `No endpoints found that support tool use`. */
const NO_TOOLS = /not support (tools|tool use|function)|found that support tool/i;

const toolless = (behind: string): string =>
  `The model can not use tools${behind}: give the agent none, or another model.`;

/** What a refusal of the request means to whoever set the model up. */
function advice(status: number, behind: string): string {
  if (status === 401 || status === 403)
    return `The model provider refused the key${behind}: the operator has to look at it.`;
  if (status === 404)
    return `The model provider has no such model or address${behind}: look at the agent's model and the base URL.`;
  if (status >= 300 && status < 400)
    return `The model provider points elsewhere${behind}: the base URL is not the endpoint's own.`;
  return `The model provider refused the request${behind}.`;
}

// --- What an answer under 200 was --------------------------------------------------------------------------------------

/** The same failure once text has been shown: it cuts the answer off, and the client may send its message again. */
export const afterText = ({ data, diagnosis }: ModelFailure): ModelFailure =>
  new ModelFailure(new RefusalError({ ...data, retryable: true }), diagnosis, false);

/** The answer ended, broke or could not be read on before its end. */
export const cutOff = (finish = ''): ModelFailure =>
  failure(
    { reason: 'cut', finish },
    {
      ...{ code: 'MODEL_ERROR', transient: true, details: { cut: true } },
      message: 'The model broke off in the middle of its answer.',
    },
  );

export const unreadable = (contentType: string): ModelFailure =>
  failure(
    { reason: 'unreadable', contentType: plainType(contentType) },
    {
      ...{ code: 'MODEL_ERROR', transient: true },
      message: 'The model provider answered in a way that cannot be read.',
    },
  );

export const notAModel = (contentType: string): ModelFailure =>
  failure(
    { reason: 'no_model', contentType: plainType(contentType) },
    {
      ...{ code: 'MODEL_ERROR', transient: false, retryable: true },
      message: 'What answered is not the endpoint of a model: the operator has to look at the base URL.',
    },
  );

const MISSING = {
  empty: 'The model gave an empty answer.',
  thoughts: 'The model gave no answer, only thoughts.',
  calls: 'The model announced calls of tools, but there was no call.',
};

export const nothingToShow = (what: keyof typeof MISSING): ModelFailure =>
  failure({ reason: `empty_${what}` }, { code: 'MODEL_ERROR', transient: true, message: MISSING[what] });

export const failedFinish = (finish: string): ModelFailure =>
  failure(
    { reason: 'failed_finish', finish },
    {
      ...{ code: 'MODEL_UNAVAILABLE', transient: true, details: { cut: true } },
      message: 'The model was stopped in the middle of its answer.',
    },
  );

/** The same question would be filtered again, but another draw of the model may not be. */
export const filtered = (finish: string): ModelFailure =>
  failure(
    { reason: 'filtered', finish },
    {
      ...{ code: 'MODEL_ERROR', transient: false, retryable: true, details: { filtered: true } },
      message: "The provider's content filter stopped the answer.",
    },
  );

/** The endpoint failed so often that it is not asked for a while. */
export const circuitOpen = (retryAfterMs: number): ModelFailure =>
  failure(
    { reason: 'circuit_open' },
    {
      ...{ code: 'MODEL_UNAVAILABLE', transient: false, retryAfterMs },
      message: 'The model provider has failed too often; it is asked again in a while.',
    },
  );

/** The node does not have the provider, or only its name: a variable is `missing`. */
export const notSetUp = (provider: string, missing: string | undefined): ModelFailure =>
  failure(
    { reason: 'not_set_up' },
    {
      ...{ code: 'MODEL_UNAVAILABLE', transient: false, retryable: false },
      message:
        missing === undefined
          ? `This node has no model provider ${provider}: the operator has to set it up.`
          : `The model provider ${provider} can not answer: the operator has to set ${missing}.`,
    },
  );

/** It did not begin to answer in time, and another one is asked. */
export const silentModel = (): ModelFailure =>
  failure(
    { reason: 'silent' },
    {
      ...{ code: 'MODEL_UNAVAILABLE', transient: true },
      message: 'The model did not begin to answer in time.',
    },
  );

export const tooLongForModel = (): ModelFailure =>
  failure(
    { reason: 'context' },
    {
      ...{ code: 'MODEL_ERROR', transient: false },
      message: "The message is longer than the model's context.",
    },
  );

// --- What was thrown -----------------------------------------------------------------------------------------------------

/** Turns what a request threw into a failure: a refusal stays, a connection that broke is one, all else is a bug. */
export function classify(error: unknown): ModelFailure {
  if (error instanceof ModelFailure) return error;
  if (error instanceof RefusalError) return new ModelFailure(error, { reason: error.data.code }, false);
  if (isConnectionError(error))
    return failure(
      { reason: 'connection' },
      {
        ...{ code: 'MODEL_UNAVAILABLE', transient: true },
        message: 'The connection to the model provider failed.',
      },
    );
  return failure(
    { reason: 'unreadable' },
    {
      ...{ code: 'MODEL_ERROR', transient: false },
      message: 'The model provider answered in a way that cannot be read.',
    },
  );
}

/**
 * Milliseconds to wait, out of `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3).
 * Undefined where neither is there or readable.
 */
export function parseRetryAfter(
  header: (name: string) => string | null | undefined,
  nowMs: number,
): number | undefined {
  const ms = Number.parseFloat(header('retry-after-ms') ?? '');
  if (Number.isFinite(ms) && ms >= 0) return Math.min(ms, MAX_WAIT_MS);
  const text = header('retry-after')?.trim();
  if (!text) return undefined;
  if (/^\d+(\.\d+)?$/.test(text)) return Math.min(Number.parseFloat(text) * 1000, MAX_WAIT_MS);
  // `-5` is a date to JavaScript.
  const date = /^[a-z]{3}/i.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.min(Math.max(0, date - nowMs), MAX_WAIT_MS);
}

/** Longer waits say that nothing is to be had today. */
const MAX_WAIT_MS = 86_400_000;

/** Milliseconds to wait, as an error says it: seconds (OpenRouter), or Google's `RetryInfo` (`"1.5s"`). */
function waitIn(error: unknown): number | undefined {
  const details = at(error, 'details');
  const delays = Array.isArray(details) ? details.map((each) => at(each, 'retryDelay')) : [];
  const delay = delays.find((each) => typeof each === 'string');
  const named = at(at(error, 'metadata'), 'retry_after') ?? at(error, 'retry_after') ?? delay;
  const seconds = Number(typeof named === 'string' ? named.replace(/s$/, '') : named);
  return seconds > 0 ? Math.min(seconds * 1_000, MAX_WAIT_MS) : undefined;
}

/** The error within a body: OpenAI's `error`, FastAPI's `detail`, Gemini's in a list, or the body itself. */
function errorOf(body: unknown): unknown {
  const first: unknown = Array.isArray(body) ? body[0] : body;
  return at(first, 'error') ?? first;
}

/** The provider's own code, such as `invalid_api_key`, where it is surely only that. */
function codeOf(error: unknown): string | undefined {
  for (const key of ['code', 'type', 'status']) {
    const code = at(error, key);
    if (typeof code !== 'string' || !/^[a-zA-Z][a-zA-Z_]{1,48}$/.test(code) || code === 'error') continue;
    if (key !== 'type' || /_error$|limit|quota|exceeded|exhausted/.test(code)) return code.toLowerCase();
  }
  return undefined;
}

const STATUS_WORDS: readonly (readonly [RegExp, number])[] = [
  [/rate_?limit|too_?many|resource_?exhausted|throttl|quota/, 429],
  [/auth|api_?key|permission|forbidden|unauthenticated/, 401],
  [/not_?found/, 404],
  [/context_length|invalid|bad_?request|unprocessable|content_(policy|filter)|unsupported/, 400],
];

/** The status that an error's code stands for: a number, a numeral or a word; undefined where it says nothing. */
function statusOf(error: unknown): number | undefined {
  for (const key of ['code', 'status', 'status_code', 'http_status']) {
    const number = Number(at(error, key));
    if (Number.isInteger(number) && number >= 300 && number < 600) return number;
  }
  const words = ['code', 'type', 'status']
    .map((key) => at(error, key))
    .filter((word) => typeof word === 'string');
  const text = words.join(' ').toLowerCase();
  return STATUS_WORDS.find(([word]) => word.test(text))?.[1];
}

/** A content type without its parameters, and only where it looks like one. */
const plainType = (text: string | undefined): string | undefined =>
  /^[\w.+-]{1,40}\/[\w.+-]{1,60}/.exec(text ?? '')?.[0];

/** True for what undici and Node throw when there was no HTTP answer; the cause chain is short. */
function isConnectionError(error: unknown): boolean {
  let link = error;
  for (let depth = 0; depth < 5 && link instanceof Error; depth += 1, link = link.cause) {
    const code = at(link, 'code');
    if (typeof code === 'string' && /^(E[A-Z_]{3,}|UND_ERR_|HPE_|CERT_|DEPTH_|SELF_|UNABLE_)/.test(code))
      return true;
    if (/Connection|TimeoutError|SocketError|HTTPParserError/.test(`${link.name} ${link.constructor.name}`))
      return true;
    if (/fetch failed|terminated|socket hang up|premature close|other side closed/i.test(link.message))
      return true;
  }
  return false;
}

function at(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}
