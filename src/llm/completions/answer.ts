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
import {
  type Chunk,
  errorIn,
  type Finish,
  isObject,
  type ReasoningField,
  readChunk,
  type Usage,
} from './chunk.ts';
import { EventScan } from './event-scan.ts';
import { type TagPair, ThinkTagScan, type ThinkTags } from './think-tags.ts';

/** Told in the tick in which it arrives. */
export interface AnswerSink {
  /** Something came that says something; comments and pings do not. */
  onChunk(): void;
  onText(text: string): void;
  onReasoning(text: string): void;
  /** It is asked for once more: what it was told of so far does not count. Never after text. */
  onAgain(): void;
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
  /** They stood in the content, between these: there they go back. */
  readonly tags?: TagPair;
}

/** How much of a body that is no stream of events is looked at. */
const MAX_BODY_BYTES = 4 * 1024 * 1024;
/** Data that keeps a connection alive, and `[DONE]`. */
const PING = /^\[?[\w-]{1,20}\]?$/;
/** The end of events without blank lines between them. */
const LAST_DONE = /\n\[DONE\]\s*$/;
/** Lines of a stream without an event, and blank ones. */
const EVENT_LINE = /^(:.*|(data|event|id|retry)(:.*)?|\s*)$/;
/** How a stream of events begins, and no JSON. */
const EVENT_FIELDS = [':', 'data:', 'event:', 'id:', 'retry:'];
/** What begins like this may be a tag of thoughts; nothing else is looked at. */
const LIKE_TAG = /^\s*([<[◁]|$)/;
const REPLACEMENT = '\ufffd';
/** UTF-16 units of thoughts that are held to be sent back. */
const MAX_THOUGHT_UNITS = 1_000_000;

/**
 * The end of an answer is its finish, or `[DONE]`: what follows, a reset among it, takes nothing back. An answer
 * without either is cut off. A class: there is one for each stream, and its closures would weigh more than it holds.
 */
export class AnswerReader {
  readonly #contentType: string;
  #isJson: boolean;
  readonly #sink: AnswerSink;
  readonly #scan: EventScan;
  readonly #calls: OpenCall[] = [];
  readonly #thinkTags: ThinkTags;
  /** Reads the beginning of the content, where thoughts may stand in it. */
  #tags: ThinkTagScan | undefined;
  #text = '';
  /** Half a character, whose other half may follow. */
  #half = '';
  #thought = '';
  #field: ReasoningField = 'reasoning_content';
  #details: readonly unknown[] = [];
  #finish: Finish | undefined;
  #word = '';
  #usage: Usage | undefined;
  #isDone = false;
  #chunks = 0;
  #failure: ModelFailure | undefined;
  /** The body so far, while no event was in it: it may be JSON, or a page. */
  #body: Buffer[] | undefined = [];
  #bodyBytes = 0;

  /** `contentType` is the body's, as the endpoint names it. */
  constructor(contentType: string, sink: AnswerSink, thinkTags: ThinkTags = 'read') {
    this.#contentType = contentType;
    this.#thinkTags = thinkTags;
    this.#isJson = /\bjson\b/i.test(contentType);
    this.#sink = sink;
    this.#scan = new EventScan((data, name) => this.#event(data, name));
  }

  /** The answer is whole, though its connection may still be open: nothing more is worth waiting for. */
  get done(): boolean {
    return this.#isDone || this.#failure !== undefined;
  }

  /** It has its end, but a last word (usage) may follow. */
  get finished(): boolean {
    return this.#finish !== undefined;
  }

  /** Its usage has come. */
  get counted(): boolean {
    return this.#usage !== undefined;
  }

  /** More of it is on its way. */
  get amidst(): boolean {
    return this.#scan.isAmidst;
  }

  /** Throws what the sink throws. */
  push(bytes: Buffer): void {
    if (this.done) return;
    if (this.#bodyBytes === 0 && beginsEvents(bytes)) this.#isJson = false;
    if (this.#body) {
      this.#bodyBytes += bytes.length;
      if (this.#bodyBytes <= MAX_BODY_BYTES) this.#body.push(bytes);
      else if (this.#isJson) this.#fail(unreadable(this.#contentType));
      else this.#body = undefined;
    }
    if (this.#isJson) return;
    try {
      this.#scan.push(bytes);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.#fail(unreadable(this.#contentType));
    }
  }

  /** The body ended. */
  end(): void {
    if (this.done) return;
    if (!this.#isJson) this.#scan.end();
    if (this.#body && this.#body.length > 0) this.#readBody(Buffer.concat(this.#body));
  }

  /** The connection broke. */
  broke(): void {
    if (!this.#isDone && this.#finish === undefined) this.#fail(cutOff(this.#word));
  }

  /** The answer, or throws a ModelFailure. To be asked once the body has ended, broke, or is not waited for. */
  result(mayBeEmpty: boolean): Answer {
    this.#showHeld();
    const finish = this.#finish;
    if (this.#failure) throw this.#text === '' ? this.#failure : afterText(this.#failure);
    if (finish === 'filtered') throw filtered(this.#word);
    if (finish === 'failed') throw failedFinish(this.#word);
    const isEmpty = this.#text === '' && this.#calls.length === 0;
    if (!this.#isDone && finish === undefined)
      throw isEmpty && this.#chunks === 0 ? nothingToShow('empty') : cutOff(this.#word);
    if (isEmpty && !(mayBeEmpty && finish !== 'tool_calls'))
      throw nothingToShow(this.#thought !== '' ? 'thoughts' : finish === 'tool_calls' ? 'calls' : 'empty');
    return {
      text: this.#text,
      calls: this.#calls,
      thoughts: this.#thoughts(),
      finish: finish ?? 'stop',
      usage: this.#usage,
    };
  }

  #thoughts(): Thoughts | undefined {
    if (this.#thought === '' && this.#details.length === 0) return undefined;
    const thoughts = { text: this.#thought, field: this.#field, details: this.#details };
    const tags = this.#tags?.pair;
    return tags ? { ...thoughts, tags } : thoughts;
  }

  /** The first failure counts. */
  #fail(failure: ModelFailure): void {
    this.#failure ??= failure;
  }

  #event(data: string, name: string): void {
    if (this.#failure) return;
    this.#body = undefined;
    if (data.length < 30) {
      const word = data.trim();
      if (word === '[DONE]') this.#isDone = true;
      if (PING.test(word)) return;
    }
    const parsed = parse(data) ?? parseLines(data);
    if (parsed) {
      this.#values(parsed, name);
      if (LAST_DONE.test(data)) this.#isDone = true;
    } else if (this.#finish !== undefined) return;
    else if (name === 'error') this.#fail(errorUnder200({}));
    else this.#fail(this.#text === '' ? unreadable(this.#contentType) : cutOff(this.#word));
  }

  /** The body was no stream of events: a whole completion, an error, or something else altogether. */
  #readBody(bytes: Buffer): void {
    const whole = bytes.toString('utf8').trim();
    if (whole.split(/[\r\n]+/).every((line) => EVENT_LINE.test(line))) return;
    const parsed = parse(whole) ?? parseLines(whole);
    const isNearly = this.#isJson || whole.startsWith('{');
    if (!parsed) return this.#fail((isNearly ? unreadable : notAModel)(this.#contentType));
    this.#values(parsed, '');
    if (this.#text !== '' || this.#calls.length > 0) this.#isDone = true;
    else if (this.#chunks === 0) this.#fail(notAModel(this.#contentType));
  }

  #values(values: readonly unknown[], name: string): void {
    for (const value of values)
      if (Array.isArray(value)) this.#values(value, name);
      else if (isObject(value)) this.#value(value, name);
  }

  #value(value: Record<string, unknown>, name: string): void {
    this.#chunks += 1;
    this.#sink.onChunk();
    const error = errorIn(value, name);
    if (error === undefined) this.#take(readChunk(value));
    else if (this.#finish === undefined) this.#fail(errorUnder200(error));
  }

  #take(chunk: Chunk): void {
    if (chunk.usage) this.#usage = chunk.usage;
    if (chunk.finish) {
      this.#finish = chunk.finish;
      this.#word = chunk.finishWord ?? '';
    }
    if (chunk.isWhole && this.#isRepeated(chunk.text ?? '')) return;
    if (chunk.reasoning !== undefined) {
      this.#field = chunk.reasoningField ?? this.#field;
      this.#think(chunk.reasoning);
    }
    if (chunk.reasoningDetails) this.#details = [...this.#details, ...chunk.reasoningDetails];
    if (chunk.calls) addPieces(this.#calls, chunk.calls);
    if (chunk.text !== undefined) this.#read(chunk.text);
  }

  /** All of the text so far once more. */
  #isRepeated(whole: string): boolean {
    if (this.#text === '') return false;
    if (whole === this.#text || !this.#tags) return whole === this.#text;
    const again = new ThinkTagScan(this.#thinkTags === 'begun');
    return again.push(whole).text + again.end().text === this.#text;
  }

  #think(piece: string): void {
    if (piece === '') return;
    if (this.#thought.length < MAX_THOUGHT_UNITS) this.#thought += piece;
    this.#sink.onReasoning(piece);
  }

  /** Content: text, and at its beginning perhaps thoughts. */
  #read(piece: string): void {
    if (this.#tags === undefined && this.#text === '' && this.#half === '' && this.#mayThink(piece))
      this.#tags = new ThinkTagScan(this.#thinkTags === 'begun');
    if (!this.#tags || this.#tags.isOver) return this.#show(piece);
    const { thought, text } = this.#tags.push(piece);
    this.#think(thought.toWellFormed());
    if (text !== '') this.#show(text);
  }

  #mayThink(piece: string): boolean {
    return this.#thinkTags === 'begun' || (this.#thinkTags === 'read' && LIKE_TAG.test(piece));
  }

  /** What was held back. */
  #showHeld(): void {
    const { thought, text } = this.#tags?.end() ?? { thought: '', text: '' };
    this.#think(thought.toWellFormed());
    if (text !== '') this.#show(text);
    this.#showHalf();
  }

  /** Text is well-formed Unicode, also where a character comes in two halves. */
  #show(piece: string): void {
    let whole = this.#half + piece;
    this.#half = isHighHalf(whole.charCodeAt(whole.length - 1)) ? whole.slice(-1) : '';
    if (this.#half !== '') whole = whole.slice(0, -1);
    if (whole === '') return;
    if (!whole.isWellFormed()) whole = whole.toWellFormed();
    this.#text += whole;
    this.#sink.onText(whole);
  }

  /** A half that stays alone. */
  #showHalf(): void {
    if (this.#half === '') return;
    this.#half = '';
    this.#text += REPLACEMENT;
    this.#sink.onText(REPLACEMENT);
  }
}

/** Whether the first bytes are those of a stream of events, whatever its content type says. */
function beginsEvents(bytes: Buffer): boolean {
  const text = bytes.toString('latin1', 0, 32).trimStart();
  return text !== '' && EVENT_FIELDS.some((field) => text.startsWith(field) || field.startsWith(text));
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
  const lines = data.split('\n').filter((line) => line.trim() !== '' && !PING.test(line.trim()));
  if (lines.length < 2) return undefined;
  const values = lines.map((line) => parse(line.replace(/^data:/, '').trim()));
  return values.some((each) => each === undefined) ? undefined : values.flatMap((each) => each ?? []);
}
