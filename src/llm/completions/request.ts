/** One HTTP request for one answer: sent, read as it comes, and let go of as soon as the answer is whole. */
import type { Transform } from 'node:stream';
import {
  createBrotliDecompress,
  createGunzip,
  createInflate,
  createInflateRaw,
  createZstdDecompress,
} from 'node:zlib';
import type { Dispatcher } from 'undici';
import type { TenantId } from '../../domain/ids.ts';
import { classify, cutOff, type ModelFailure } from '../model-errors.ts';
import { type Answer, AnswerReader, type AnswerSink } from './answer.ts';
import type { Connections } from './connections.ts';
import type { ThinkTags } from './think-tags.ts';

/** After its finish an answer may still bring its usage: so long is waited for bytes, and for all that say nothing. */
const AFTER_FINISH_MS = 1_500;
const AFTER_FINISH_AT_MOST_MS = 2_000;
/** With its usage, an answer has all there is to come. */
const AFTER_USAGE_MS = 100;
/** How long a connection has to end its body after `[DONE]`, to be used again. */
const AFTER_DONE_MS = 500;
/** How much of an error's body is read. */
const MAX_ERROR_BYTES = 64 * 1024;

export interface AnswerRequest {
  readonly connections: Pick<Connections, 'dispatcher' | 'reads'>;
  readonly tenantId: TenantId;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** JSON text. */
  readonly body: string;
  readonly signal: AbortSignal;
  /** Whether an answer without text and calls is one: after a tool has run. */
  readonly mayBeEmpty: boolean;
  readonly thinkTags: ThinkTags;
}

/** An HTTP status that is no answer. `text` is the beginning of its body. */
export interface HttpRefusal {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

export type Asked =
  | { readonly type: 'answer'; readonly answer: Answer }
  | { readonly type: 'refused'; readonly refusal: HttpRefusal };

/** Resolves to the answer or the refusal. Rejects with a ModelFailure, or with the signal's reason. */
export const ask = (request: AnswerRequest, sink: AnswerSink): Promise<Asked> =>
  new Promise((resolve, reject) => {
    new Exchange(request, sink, resolve, reject).start();
  });

/** One request and its answer. It settles once; its connection may live on a little, to be used again. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #request: AnswerRequest;
  readonly #sink: AnswerSink;
  readonly #resolve: (asked: Asked) => void;
  readonly #reject: (error: unknown) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #reading: Reading | undefined;
  #timer: NodeJS.Timeout | undefined;
  #finishedAt: number | undefined;
  /** The turn of the loop in which it was last read. */
  #readIn = -1;
  #isSettled = false;

  constructor(
    request: AnswerRequest,
    sink: AnswerSink,
    resolve: (asked: Asked) => void,
    reject: (error: unknown) => void,
  ) {
    this.#request = request;
    this.#sink = sink;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  start(): void {
    const { connections, url, headers, body, signal } = this.#request;
    if (signal.aborted) return this.#onAbort();
    signal.addEventListener('abort', this.#onAbort, { once: true });
    connections.dispatcher.dispatch(
      {
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'text/event-stream', ...headers },
        body,
      },
      this,
    );
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#request.signal.aborted) this.#letGo();
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: HttpRefusal['headers'],
  ): void {
    if (status < 200) return;
    const reading =
      status < 300
        ? readAnswer(String(headers['content-type'] ?? ''), this.#sink, this.#request.thinkTags)
        : readRefusal(status, headers);
    this.#reading = decoded(headers['content-encoding'], reading, () => this.#look());
    this.#look();
  }

  /** In one turn of the loop all that has come is read; past the turn's share, that is done in a later one. */
  onResponseData(controller: Dispatcher.DispatchController, bytes: Buffer): void {
    this.#reading?.push(bytes);
    this.#look();
    const { connections, tenantId } = this.#request;
    const { reads } = connections;
    if (this.#readIn === reads.turn) return;
    this.#readIn = reads.turn;
    if (reads.take()) return;
    controller.pause();
    reads.soon(tenantId, () => {
      this.#readIn = reads.turn;
      controller.resume();
    });
  }

  onResponseEnd(): void {
    this.#reading?.end(() => this.#end());
    clearTimeout(this.#timer);
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    clearTimeout(this.#timer);
    if (this.#isSettled) return;
    // Before the answer's head a broken connection is one; behind it, it cuts the answer off.
    if (!this.#reading) return this.#settle(() => raise(classify(error)));
    this.#reading.broke(error);
    this.#end();
  }

  readonly #onAbort = (): void => {
    this.#settle(() => raise(this.#request.signal.reason));
    clearTimeout(this.#timer);
    this.#letGo();
  };

  /** Called whenever something came: an answer that is whole is not kept waiting. */
  #look(): void {
    const reading = this.#reading;
    if (!reading || this.#isSettled) return;
    if (reading.done) {
      this.#end();
      this.#timer = setTimeout(() => this.#letGo(), AFTER_DONE_MS).unref();
    } else if (reading.finished) this.#waitForMore(reading);
  }

  #waitForMore(reading: Reading): void {
    const { counted, amidst } = reading;
    const now = performance.now();
    this.#finishedAt ??= now;
    // An event that is on its way is waited for, as long as it moves.
    const left = amidst ? AFTER_FINISH_MS : this.#finishedAt + AFTER_FINISH_AT_MOST_MS - now;
    clearTimeout(this.#timer);
    const stop = (): void => {
      // What has come and waits for its turn of the loop is no silence.
      if (this.#controller?.paused) return this.#waitForMore(reading);
      this.#end();
      this.#letGo();
    };
    this.#timer = setTimeout(stop, Math.min(left, counted && !amidst ? AFTER_USAGE_MS : AFTER_FINISH_MS));
  }

  #end(): void {
    clearTimeout(this.#timer);
    const reading = this.#reading;
    this.#settle(() => (reading ? reading.result(this.#request.mayBeEmpty) : raise(cutOff())));
  }

  #settle(outcome: () => Asked): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#request.signal.removeEventListener('abort', this.#onAbort);
    try {
      this.#resolve(outcome());
    } catch (error) {
      this.#reject(error);
    }
  }

  #letGo(): void {
    if (this.#controller && !this.#controller.aborted)
      this.#controller.abort(new Error('the answer is whole'));
  }
}

function raise(error: unknown): never {
  throw error;
}

/** A body as it is read: an answer or a refusal. `end` calls back once everything was read. */
interface Reading {
  readonly done: boolean;
  readonly finished: boolean;
  readonly counted: boolean;
  readonly amidst: boolean;
  push(bytes: Buffer): void;
  end(then: () => void): void;
  broke(error: unknown): void;
  result(mayBeEmpty: boolean): Asked;
}

function readAnswer(contentType: string, sink: AnswerSink, thinkTags: ThinkTags): Reading {
  const reader = new AnswerReader(contentType, sink, thinkTags);
  let thrown: ModelFailure | undefined;
  const guarded = (step: () => void): void => {
    try {
      if (!thrown) step();
    } catch (error) {
      thrown = classify(error);
    }
  };
  return {
    get done() {
      return thrown !== undefined || reader.done;
    },
    get finished() {
      return reader.finished;
    },
    get counted() {
      return reader.counted;
    },
    get amidst() {
      return reader.amidst;
    },
    push: (bytes) => guarded(() => reader.push(bytes)),
    end(then) {
      guarded(() => reader.end());
      then();
    },
    broke: () => reader.broke(),
    result(mayBeEmpty) {
      if (thrown) throw thrown;
      return { type: 'answer', answer: reader.result(mayBeEmpty) };
    },
  };
}

function readRefusal(status: number, headers: HttpRefusal['headers']): Reading {
  const parts: Buffer[] = [];
  let length = 0;
  return {
    get done() {
      return length >= MAX_ERROR_BYTES;
    },
    finished: true,
    counted: false,
    amidst: false,
    push(bytes) {
      length += bytes.length;
      parts.push(bytes);
    },
    end: (then) => then(),
    broke() {},
    result: () => {
      const text = Buffer.concat(parts).subarray(0, MAX_ERROR_BYTES).toString('utf8');
      return { type: 'refused', refusal: { status, headers, text } };
    },
  };
}

/** How events, JSON and pages begin. */
const PLAIN = /^\s*(data|event|id|retry|:|\{|\[|<|\ufeff|ï»¿)/;

/** What unpacks a body by its first bytes; its header alone is not to be believed, since gateways unpack and pack. */
function decoderOf(encoding: string, head: Buffer): Transform | undefined {
  if (head[0] === 0x1f && (head[1] ?? 0x8b) === 0x8b) return createGunzip();
  if (encoding === '' || PLAIN.test(head.toString('latin1', 0, 64))) return undefined;
  if (/\bzstd\b/.test(encoding)) return createZstdDecompress();
  if (/\bbr\b/.test(encoding)) return createBrotliDecompress();
  if (/\bdeflate\b/.test(encoding)) return head[0] === 0x78 ? createInflate() : createInflateRaw();
  return undefined;
}

/** Nobody asked for a packed answer; some gateways pack it all the same. */
function decoded(encoding: string | string[] | undefined, inner: Reading, look: () => void): Reading {
  let isOpen = false;
  let decoder: Transform | undefined;
  let broken = false;
  let then = (): void => {};
  const open = (head: Buffer): void => {
    isOpen = true;
    decoder = decoderOf(String(encoding ?? '').toLowerCase(), head);
    decoder?.on('data', (bytes: Buffer) => {
      inner.push(bytes);
      look();
    });
    decoder?.on('end', () => inner.end(then));
    decoder?.on('error', (error) => {
      broken = true;
      inner.broke(error);
      then();
    });
  };
  return {
    get done() {
      return inner.done;
    },
    get finished() {
      return inner.finished;
    },
    get counted() {
      return inner.counted;
    },
    get amidst() {
      return inner.amidst;
    },
    push(bytes) {
      if (!isOpen) open(bytes);
      if (!decoder) inner.push(bytes);
      else if (!broken) decoder.write(bytes);
    },
    end(after) {
      then = after;
      if (!decoder) inner.end(after);
      else if (broken) after();
      else decoder.end();
    },
    broke: (error) => inner.broke(error),
    result: (mayBeEmpty) => inner.result(mayBeEmpty),
  };
}
