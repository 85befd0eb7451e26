/** A real HTTP server that speaks OpenAI's chat completions, well and badly, as a test scripts it. */
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import { setTimeout as delay, setImmediate as nextLoopTurn } from 'node:timers/promises';

/** What came in. `body` is the parsed JSON. */
export interface StubRequest {
  readonly index: number;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: StubBody;
}

/** Bytes of an answer: a string goes out as UTF-8, a buffer as it stands. */
export type Bytes = string | Uint8Array;

/** The fields of a chat completion request that tests look at. */
export interface StubBody {
  readonly model?: string;
  readonly stream?: boolean;
  readonly temperature?: number;
  readonly max_tokens?: number;
  readonly max_completion_tokens?: number;
  readonly stream_options?: unknown;
  readonly response_format?: unknown;
  readonly messages: readonly StubMessage[];
  readonly tools?: readonly { readonly type: string; readonly function: { readonly name: string } }[];
}

export interface StubMessage {
  readonly role: string;
  readonly content?: unknown;
  readonly tool_call_id?: string;
  /** Thoughts that some models want back beside their calls. */
  readonly reasoning_content?: unknown;
  readonly tool_calls?: readonly {
    readonly id: string;
    readonly function: { readonly name: string; readonly arguments: string };
    readonly extra_content?: { readonly google?: { readonly thought_signature?: unknown } };
  }[];
}

/** One answer in the making, for scenarios. */
export interface StubReply {
  readonly request: StubRequest;
  /** Aborted when the connection closes. */
  readonly signal: AbortSignal;
  /** Answers without a stream. */
  refuse(status: number, body?: object, headers?: Record<string, string>): void;
  /** One `delta` of the first choice. */
  delta(delta: object): void;
  /** The chunk that carries `finish_reason`. */
  finish(reason: string): void;
  usage(totalTokens: number): void;
  /** Ends the stream with `[DONE]`. */
  done(): void;
  /** Breaks the connection off. */
  destroy(): void;
  /** The answer itself, for what none of the above says. */
  readonly response: ServerResponse;
}

/** Plays one answer. Rejections end with the connection and are nobody's. */
export type Scenario = (reply: StubReply) => void | Promise<void>;

export interface StubCall {
  readonly name: string;
  /** JSON text, or what a model might take for it. */
  readonly args: string;
  readonly id?: string;
}

/** Streams `text` in `chunks` pieces, `everyMs` apart; `usage` is the total in a last chunk, null for none. */
export function say(
  text: string,
  options: { chunks?: number; usage?: number | null; everyMs?: number; finish?: string } = {},
): Scenario {
  return async (reply) => {
    reply.delta({ role: 'assistant', content: '' });
    for (const piece of split(text, options.chunks ?? 3)) {
      if (options.everyMs) await delay(options.everyMs, undefined, { signal: reply.signal });
      reply.delta({ content: piece });
    }
    end(reply, options.finish ?? 'stop', options.usage);
  };
}

/** Asks for tools; each call's arguments come in `pieces`, those of all calls in turn. */
export function callTools(
  calls: readonly StubCall[],
  options: { pieces?: number; usage?: number | null; text?: string } = {},
): Scenario {
  return (reply) => {
    reply.delta({ role: 'assistant', content: options.text ?? null });
    calls.forEach(({ name, id }, index) => {
      const call = { index, id: id ?? `call-${reply.request.index}-${index}`, type: 'function' };
      reply.delta({ tool_calls: [{ ...call, function: { name, arguments: '' } }] });
    });
    const pieces = calls.map(({ args }) => split(args, options.pieces ?? 3));
    for (let piece = 0; piece < (options.pieces ?? 3); piece += 1)
      pieces.forEach((parts, index) => {
        const text = parts[piece];
        if (text) reply.delta({ tool_calls: [{ index, function: { arguments: text } }] });
      });
    end(reply, 'tool_calls', options.usage);
  };
}

/** Answers with an HTTP error. */
export const refuse =
  (status: number, headers: Record<string, string> = {}, body: object = errorBody(status)): Scenario =>
  (reply) =>
    reply.refuse(status, body, headers);

/** Streams `text`, then destroys the socket. */
export const cutAfter =
  (text: string): Scenario =>
  async (reply) => {
    reply.delta({ role: 'assistant', content: text });
    await nextLoopTurn(); // the text leaves with this one
    reply.destroy();
  };

/** Streams `text`, then ends the stream in good order but without a finish_reason. */
export const endAfter =
  (text: string): Scenario =>
  (reply) => {
    reply.delta({ role: 'assistant', content: text });
    reply.done();
  };

/** Streams `text` and says nothing more; with no text, not even that it has heard. */
export const stallAfter =
  (text: string): Scenario =>
  (reply) => {
    if (text !== '') reply.delta({ role: 'assistant', content: text });
  };

export const silence = (): Scenario => stallAfter('');

/** Destroys the socket before any answer. */
export const hangUp = (): Scenario => (reply) => reply.destroy();

/** The lines that test/e2e/model-endpoints puts answers together from. A sound answer is TEXT STOP USAGE DONE. */
export const TEXT = line(choice({ role: 'assistant', content: 'All of it.' }));
export const HALF = line(choice({ role: 'assistant', content: 'Half of' }));
export const STOP = line(choice({}, 'stop'));
export const CALLS = line(choice({}, 'tool_calls'));
export const USAGE = line({
  choices: [],
  usage: { prompt_tokens: 100, completion_tokens: 10, total_tokens: 110 },
});
export const DONE = 'data: [DONE]\n\n';

/** One event with this JSON, or this text, as its data. */
export function line(data: object | string): string {
  return `data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`;
}

/** A chunk with one choice. */
export function choice(delta: object, finish_reason: unknown = null): object {
  return { choices: [{ index: 0, delta, finish_reason }] };
}

export interface RawOptions {
  readonly status?: number;
  /** Over `content-type: text/event-stream`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** In good order; by a reset of the connection; or never. */
  readonly end?: 'end' | 'reset' | 'hang';
  /** Pause before each piece after the first. */
  readonly everyMs?: number;
}

/** Writes exactly these bytes, piece by piece. */
export const raw =
  (
    body: Bytes | readonly Bytes[],
    { status = 200, headers, end = 'end', everyMs }: RawOptions = {},
  ): Scenario =>
  async ({ response, signal }) => {
    response.writeHead(status, { 'content-type': 'text/event-stream', ...headers });
    response.flushHeaders();
    const pieces = typeof body === 'string' || body instanceof Uint8Array ? [body] : body;
    for (const [place, piece] of pieces.entries()) {
      if (place > 0) await (everyMs ? delay(everyMs, undefined, { signal }) : nextLoopTurn());
      if (response.destroyed) return;
      response.write(piece);
    }
    if (end === 'end') response.end();
    if (end !== 'reset') return;
    await delay(RESET_AFTER_MS, undefined, { signal });
    destroyed.add(response);
    response.socket?.resetAndDestroy();
  };

/** A reset overtakes what the client has not read yet: it is given this long to read. */
const RESET_AFTER_MS = 40;

export interface StubModel {
  /** For OPENAI_BASE_URL: ends in /v1. */
  readonly baseUrl: string;
  /** For GROQ_BASE_URL: that client adds /openai/v1 itself. */
  readonly groqBaseUrl: string;
  readonly requests: readonly StubRequest[];
  /** Paths of requests that were answered 404. */
  readonly strays: readonly string[];
  /** Scenarios for the next requests, in order. */
  next(...scenarios: readonly Scenario[]): void;
  /** What a request gets when none is queued; at first: `say('Hello there.')`. */
  byDefault(choose: (request: StubRequest) => Scenario): void;
  /** Resolves once request `index` has arrived. */
  request(index: number): Promise<StubRequest>;
  /** Resolves once the client has closed the connection of request `index` before its answer ended. */
  closedByClient(index: number): Promise<void>;
  /** Connections that are open now. */
  connections(): number;
  /** Destroys all connections and stops. */
  close(): Promise<void>;
}

/** Starts the stub on a free port of 127.0.0.1. */
export async function startStubModel(): Promise<StubModel> {
  const queue: Scenario[] = [];
  const requests: StubRequest[] = [];
  const strays: string[] = [];
  const arrivals = new Moments<StubRequest>();
  const closings = new Moments<void>();
  let sockets = 0;
  let choose: (request: StubRequest) => Scenario = () => say('Hello there.');

  const server = createServer(async (incoming, response) => {
    let text = '';
    for await (const part of incoming.setEncoding('utf8')) text += part;
    if (incoming.method !== 'POST' || !incoming.url?.split('?', 1)[0]?.endsWith('/chat/completions')) {
      strays.push(incoming.url ?? '');
      response.writeHead(404).end();
      return;
    }
    const body: StubBody = JSON.parse(text);
    const request = { index: requests.length, path: incoming.url, headers: incoming.headers, body };
    requests.push(request);
    const closing = new AbortController();
    response.on('close', () => {
      closing.abort();
      if (!response.writableFinished && !destroyed.has(response)) closings.came(request.index);
    });
    arrivals.came(request.index, request);
    const scenario = queue.shift() ?? choose(request);
    await Promise.resolve(scenario(replyOn(request, response, closing.signal))).catch(() => {});
  });
  server.on('connection', (socket) => {
    sockets += 1;
    socket.on('close', () => {
      sockets -= 1;
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the stub has no port');
  const { port } = address;

  return {
    baseUrl: `http://127.0.0.1:${port}/v1`,
    groqBaseUrl: `http://127.0.0.1:${port}`,
    requests,
    strays,
    next: (...scenarios) => void queue.push(...scenarios),
    byDefault: (choice) => {
      choose = choice;
    },
    request: (index) => arrivals.wait(index),
    closedByClient: (index) => closings.wait(index),
    connections: () => sockets,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** Answers that a scenario broke off itself. */
const destroyed = new WeakSet<ServerResponse>();

function replyOn(request: StubRequest, response: ServerResponse, signal: AbortSignal): StubReply {
  const event = (data: object | string): void => {
    if (!response.headersSent)
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
    if (!response.destroyed)
      response.write(`data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`);
  };
  const head = { id: `chatcmpl-${request.index}`, object: 'chat.completion.chunk', created: 0 };
  const chunk = (rest: object): void => event({ ...head, model: request.body.model, ...rest });
  return {
    request,
    signal,
    response,
    refuse: (status, body = errorBody(status), headers = {}) => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(JSON.stringify(body));
    },
    delta: (delta) => chunk({ choices: [{ index: 0, delta, finish_reason: null }] }),
    finish: (reason) => chunk({ choices: [{ index: 0, delta: {}, finish_reason: reason }] }),
    usage: (totalTokens) => {
      const prompt_tokens = Math.floor(totalTokens / 2);
      const completion_tokens = totalTokens - prompt_tokens;
      chunk({ choices: [], usage: { prompt_tokens, completion_tokens, total_tokens: totalTokens } });
    },
    done: () => {
      event('[DONE]');
      response.end();
    },
    destroy: () => {
      destroyed.add(response);
      response.destroy();
    },
  };
}

function end(reply: StubReply, reason: string, usage: number | null | undefined): void {
  reply.finish(reason);
  if (usage !== null) reply.usage(usage ?? 42);
  reply.done();
}

/** `count` pieces of nearly the same length; fewer where the text has fewer characters. */
function split(text: string, count: number): readonly string[] {
  const pieces = Math.min(count, text.length);
  const cut = (place: number): number => Math.round((place * text.length) / pieces);
  return Array.from({ length: pieces }, (_, place) => text.slice(cut(place), cut(place + 1)));
}

/** What providers answer: the text quotes the request's secrets, so that tests can see them kept back. */
const errorBody = (status: number): object => ({
  error: {
    message: `Stub says ${status}: key sk-canary-key, message canary-message`,
    type: 'stub',
    code: null,
  },
});

/** Moments that can be waited for before and after they come. */
class Moments<T> {
  readonly #all = new Map<number, { promise: Promise<T>; resolve: (value: T) => void }>();

  #at(index: number) {
    const known = this.#all.get(index);
    if (known) return known;
    let resolve: (value: T) => void = () => {};
    const promise = new Promise<T>((settle) => {
      resolve = settle;
    });
    const made = { promise, resolve };
    this.#all.set(index, made);
    return made;
  }

  wait(index: number): Promise<T> {
    return this.#at(index).promise;
  }

  came(index: number, value: T): void {
    this.#at(index).resolve(value);
  }
}
