/** One HTTP request for one answer: sent, read as it comes, and let go of as soon as the answer is whole. */
import { createBrotliDecompress, createGunzip, createInflate, type Gunzip } from 'node:zlib';
import type { Dispatcher } from 'undici';
import { classify, cutOff, type ModelFailure } from '../model-errors.ts';
import { type Answer, type AnswerSink, createAnswerReader } from './answer.ts';

/** After its finish an answer may still bring its usage: so long is waited for bytes, and for all of them together. */
const AFTER_FINISH_MS = 1_000;
const AFTER_FINISH_AT_MOST_MS = 2_000;
/** With its usage, an answer has all there is to come. */
const AFTER_USAGE_MS = 100;
/** How long a connection has to end its body after `[DONE]`, to be used again. */
const AFTER_DONE_MS = 500;
/** How much of an error's body is read. */
const MAX_ERROR_BYTES = 64 * 1024;

export interface AnswerRequest {
  readonly dispatcher: Dispatcher;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** JSON text. */
  readonly body: string;
  readonly signal: AbortSignal;
  /** Whether an answer without text and calls is one: after a tool has run. */
  readonly mayBeEmpty: boolean;
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
export function ask(request: AnswerRequest, sink: AnswerSink): Promise<Asked> {
  const { dispatcher, url, headers, body, signal, mayBeEmpty } = request;
  return new Promise((resolve, reject) => {
    let controller: Dispatcher.DispatchController | undefined;
    let reading: Reading | undefined;
    let timer: NodeJS.Timeout | undefined;
    let finishedAt: number | undefined;
    let settled = false;

    const letGo = (): void => {
      if (controller && !controller.aborted) controller.abort(new Error('the answer is whole'));
    };
    const settle = (outcome: () => Asked): void => {
      if (settled) return;
      settled = true;
      signal.removeEventListener('abort', onAbort);
      try {
        resolve(outcome());
      } catch (error) {
        reject(error);
      }
    };
    const end = (): void => {
      clearTimeout(timer);
      const { result } = reading ?? {};
      settle(() => {
        if (!result) throw cutOff();
        return result(mayBeEmpty);
      });
    };
    const fail = (error: unknown): void => {
      clearTimeout(timer);
      // Before the answer's head a broken connection is one; behind it, it cuts the answer off.
      if (!reading) return settle(() => raise(classify(error)));
      reading.broke(error);
      end();
    };
    const onAbort = (): void => {
      settle(() => raise(signal.reason));
      clearTimeout(timer);
      letGo();
    };
    /** Called whenever something came: an answer that is whole is not kept waiting. */
    const look = (): void => {
      if (!reading || settled) return;
      if (reading.done) {
        end();
        timer = setTimeout(letGo, AFTER_DONE_MS).unref();
      } else if (reading.finished) {
        const now = performance.now();
        finishedAt ??= now;
        const left = finishedAt + AFTER_FINISH_AT_MOST_MS - now;
        clearTimeout(timer);
        timer = setTimeout(
          () => {
            end();
            letGo();
          },
          Math.min(left, reading.counted ? AFTER_USAGE_MS : AFTER_FINISH_MS),
        );
      }
    };

    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    dispatcher.dispatch(
      {
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'text/event-stream', ...headers },
        body,
      },
      {
        onRequestStart(started) {
          controller = started;
          if (signal.aborted) letGo();
        },
        onResponseStart(_controller, status, responseHeaders) {
          if (status < 200) return;
          const read =
            status < 300
              ? readAnswer(String(responseHeaders['content-type'] ?? ''), sink)
              : readRefusal(status, responseHeaders);
          reading = decoded(responseHeaders['content-encoding'], read, look);
          look();
        },
        onResponseData(_controller, bytes) {
          reading?.push(bytes);
          look();
        },
        onResponseEnd() {
          reading?.end(end);
          clearTimeout(timer);
        },
        onResponseError(_controller, error) {
          clearTimeout(timer);
          if (!settled) fail(error);
        },
      },
    );
  });
}

function raise(error: unknown): never {
  throw error;
}

/** A body as it is read: an answer or a refusal. `end` calls back once everything was read. */
interface Reading {
  readonly done: boolean;
  readonly finished: boolean;
  readonly counted: boolean;
  push(bytes: Buffer): void;
  end(then: () => void): void;
  broke(error: unknown): void;
  result(mayBeEmpty: boolean): Asked;
}

function readAnswer(contentType: string, sink: AnswerSink): Reading {
  const reader = createAnswerReader(contentType, sink);
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
    push: (bytes) => guarded(() => reader.push(bytes)),
    end(then) {
      guarded(() => reader.end());
      then();
    },
    broke: (error) => reader.broke(error),
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

const DECODERS: Readonly<Record<string, () => Gunzip>> = {
  gzip: createGunzip,
  'x-gzip': createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress,
};

/** Nobody asked for a packed answer; some gateways pack it all the same. */
function decoded(encoding: string | string[] | undefined, inner: Reading, look: () => void): Reading {
  const create =
    DECODERS[
      String(encoding ?? '')
        .trim()
        .toLowerCase()
    ];
  if (!create) return inner;
  const decoder = create();
  decoder.on('data', (bytes: Buffer) => {
    inner.push(bytes);
    look();
  });
  let broken = false;
  let then = (): void => {};
  decoder.on('end', () => inner.end(then));
  decoder.on('error', (error) => {
    broken = true;
    inner.broke(error);
    then();
  });
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
    push: (bytes) => void (broken || decoder.write(bytes)),
    end(after) {
      then = after;
      if (broken) after();
      else decoder.end();
    },
    broke: (error) => inner.broke(error),
    result: (mayBeEmpty) => inner.result(mayBeEmpty),
  };
}
