/** Reads one answer of an endpoint from its bytes to its end, and says what it was: an answer, or which failure. */
import {
  afterText,
  cutOff,
  errorUnder200,
  failedFinish,
  filtered,
  type ModelFailure,
  notAModel,
  nothingToShow,
  unreadable,
} from '../model-errors.ts';
import { addPieces, type OpenCall } from '../tool-calls.ts';
import { type Chunk, errorIn, isObject, type ReasoningField, readChunk } from './chunk.ts';
import { createEventScan } from './event-scan.ts';
import type { Finish } from './finish.ts';
import type { Usage } from './usage.ts';

/** Told in the tick in which it arrives. */
export interface AnswerSink {
  /** Something came that says something; comments and pings do not. */
  onChunk(): void;
  onText(text: string): void;
  onReasoning(text: string): void;
}

/** A whole answer. */
export interface Answer {
  readonly text: string;
  readonly calls: readonly OpenCall[];
  readonly thoughts: Thoughts | undefined;
  readonly finish: Finish;
  readonly usage: Usage | undefined;
}

/** What a model thought: some want it back with the results of their calls, under the field it came in. */
export interface Thoughts {
  readonly text: string;
  readonly field: ReasoningField;
  readonly details: readonly unknown[];
}

/** How much of a body that is no stream of events is looked at. */
const MAX_BODY_BYTES = 4 * 1024 * 1024;
/** Data that keeps a connection alive, and `[DONE]`. */
const PING = /^\[?[\w-]{1,20}\]?$/;
/** Lines of a stream without an event, and blank ones. */
const EVENT_LINE = /^(:.*|(data|event|id|retry)(:.*)?|\s*)$/;
const REPLACEMENT = '\ufffd';
/** UTF-16 units of thoughts that are held to be sent back. */
const MAX_THOUGHT_UNITS = 1_000_000;

export interface AnswerReader {
  push(bytes: Buffer): void;
  /** The body ended. */
  end(): void;
  /** The connection broke. */
  broke(error: unknown): void;
  /** The answer is whole, though its connection may still be open: nothing more is worth waiting for. */
  readonly done: boolean;
  /** It has its end, but a last word (usage) may follow. */
  readonly finished: boolean;
  /** Its usage has come. */
  readonly counted: boolean;
  /** The answer, or throws a ModelFailure. To be asked once the body has ended, broke, or is not waited for. */
  result(mayBeEmpty: boolean): Answer;
}

/**
 * The end of an answer is its finish, or `[DONE]`: what follows, a reset among it, takes nothing back. An answer
 * without either is cut off. `contentType` is the body's, as the endpoint names it.
 */
export function createAnswerReader(contentType: string, sink: AnswerSink): AnswerReader {
  const calls: OpenCall[] = [];
  let text = '';
  /** Half a character, whose other half may follow. */
  let half = '';
  let thought = '';
  let field: ReasoningField = 'reasoning_content';
  const details: unknown[] = [];
  let finish: Finish | undefined;
  let word = '';
  let usage: Usage | undefined;
  let done = false;
  let chunks = 0;
  let failure: ModelFailure | undefined;
  /** The body so far, while no event was in it: it may be JSON, or a page. */
  let body: Buffer[] | undefined = [];
  let bodyBytes = 0;
  const isJson = /\bjson\b/i.test(contentType);

  function take(chunk: Chunk): void {
    if (chunk.usage) usage = chunk.usage;
    if (chunk.finish) {
      finish = chunk.finish;
      word = chunk.finishWord ?? '';
    }
    if (chunk.reasoning !== undefined) {
      if (thought.length < MAX_THOUGHT_UNITS) thought += chunk.reasoning;
      field = chunk.reasoningField ?? field;
      sink.onReasoning(chunk.reasoning);
    }
    if (chunk.reasoningDetails) details.push(...chunk.reasoningDetails);
    if (chunk.calls) addPieces(calls, chunk.calls);
    if (chunk.text !== undefined) show(chunk.text);
  }

  /** Text is well-formed Unicode, also where a character comes in two halves. */
  function show(piece: string): void {
    let whole = half + piece;
    half = isHighHalf(whole.charCodeAt(whole.length - 1)) ? whole.slice(-1) : '';
    if (half !== '') whole = whole.slice(0, -1);
    if (whole === '') return;
    if (!whole.isWellFormed()) whole = whole.toWellFormed();
    text += whole;
    sink.onText(whole);
  }

  /** A half that stays alone. */
  function flush(): void {
    if (half === '') return;
    half = '';
    text += REPLACEMENT;
    sink.onText(REPLACEMENT);
  }

  function value(json: unknown, name: string): void {
    if (Array.isArray(json)) {
      for (const each of json) value(each, name);
      return;
    }
    if (!isObject(json)) return;
    chunks += 1;
    sink.onChunk();
    const error = errorIn(json, name);
    if (error === undefined) take(readChunk(json));
    else if (finish === undefined) failure ??= errorUnder200(error);
  }

  function event(data: string, name: string): void {
    if (failure) return;
    body = undefined;
    if (data.length < 30) {
      const word = data.trim();
      if (word === '[DONE]') done = true;
      if (PING.test(word)) return;
    }
    const parsed = parse(data) ?? parseLines(data);
    if (parsed) for (const json of parsed) value(json, name);
    else if (name === 'error' && finish === undefined) failure ??= errorUnder200({});
    else if (finish === undefined) failure ??= text === '' ? unreadable(contentType) : cutOff(word);
  }

  const scan = createEventScan(event);

  /** The body was no stream of events: a whole completion, an error, or something else altogether. */
  function readBody(bytes: Buffer): void {
    const whole = bytes.toString('utf8').trim();
    if (whole.split(/[\r\n]+/).every((line) => EVENT_LINE.test(line))) return;
    const parsed = parse(whole) ?? parseLines(whole);
    if (!parsed) {
      failure = isJson || whole.startsWith('{') ? unreadable(contentType) : notAModel(contentType);
      return;
    }
    for (const json of parsed) value(json, '');
    if (text !== '' || calls.length > 0) done = true;
    else if (chunks === 0) failure ??= notAModel(contentType);
  }

  return {
    get done() {
      return done || failure !== undefined;
    },
    get finished() {
      return finish !== undefined;
    },
    get counted() {
      return usage !== undefined;
    },
    push(bytes) {
      if (done || failure) return;
      if (body) {
        bodyBytes += bytes.length;
        if (bodyBytes <= MAX_BODY_BYTES) body.push(bytes);
        else if (isJson) failure = unreadable(contentType);
        else body = undefined;
      }
      if (isJson) return;
      try {
        scan.push(bytes);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        failure ??= unreadable(contentType);
      }
    },
    end() {
      if (done || failure) return;
      if (!isJson) scan.end();
      if (body && body.length > 0) readBody(Buffer.concat(body));
    },
    broke() {
      if (!done && finish === undefined) failure ??= cutOff(word);
    },
    result(mayBeEmpty) {
      flush();
      if (failure) throw text === '' ? failure : afterText(failure);
      if (finish === 'filtered') throw filtered(word);
      if (finish === 'failed') throw failedFinish(word);
      const isEmpty = text === '' && calls.length === 0;
      if (!done && finish === undefined)
        throw isEmpty && chunks === 0 ? nothingToShow('empty') : cutOff(word);
      if (isEmpty && !(mayBeEmpty && finish !== 'tool_calls'))
        throw nothingToShow(thought !== '' ? 'thoughts' : finish === 'tool_calls' ? 'calls' : 'empty');
      const thoughts = thought === '' && details.length === 0 ? undefined : { text: thought, field, details };
      return { text, calls, thoughts, finish: finish ?? 'stop', usage };
    },
  };
}

const isHighHalf = (unit: number): boolean => unit >= 0xd800 && unit <= 0xdbff;

function parse(data: string): readonly unknown[] | undefined {
  try {
    return [JSON.parse(data)];
  } catch {
    return undefined;
  }
}

/** Some endpoints write one JSON value a line, with nothing between them. */
function parseLines(data: string): readonly unknown[] | undefined {
  const lines = data.split('\n').filter((line) => line.trim() !== '');
  if (lines.length < 2) return undefined;
  const values = lines.map((line) => parse(line.replace(/^data:/, '').trim()));
  return values.some((each) => each === undefined) ? undefined : values.flatMap((each) => each ?? []);
}
