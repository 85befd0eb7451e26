/** Finds the events of a text/event-stream in its bytes, however they were cut, and as people really write them. */

/** An event without its end may grow to so many bytes; a whole completion fits many times. */
const MAX_EVENT_BYTES = 16 * 1024 * 1024;

const LF = 10;
const CR = 13;
const COLON = 58;
const SPACE = 32;

/** `name` is that of the `event:` field, '' without one; `data` is never blank. */
export type OnEvent = (data: string, name: string) => void;

/**
 * Lines end in LF, CR LF or CR (WHATWG HTML, 9.2.6), and are decoded whole, so that no character is ever cut. A byte
 * order mark, comments, ids, retry times and events with blank data are passed over.
 */
export class EventScan {
  readonly #onEvent: OnEvent;
  /** A line that has not ended yet. */
  #parts: Buffer[] = [];
  #partBytes = 0;
  /** The last line ended in a CR that closed its bytes: an LF may follow that belongs to it. */
  #isAfterCr = false;
  #isFirstLine = true;
  #name = '';
  #data = '';
  #hasData = false;

  constructor(onEvent: OnEvent) {
    this.#onEvent = onEvent;
  }

  /** Reads on. Calls `onEvent` for each event that is whole now. Throws RangeError where one event outgrows memory. */
  push(bytes: Buffer): void {
    let from = this.#isAfterCr && bytes[0] === LF ? 1 : 0;
    if (bytes.length > 0) this.#isAfterCr = false;
    let cr = bytes.indexOf(CR, from);
    let lf = bytes.indexOf(LF, from);
    while (cr !== -1 || lf !== -1) {
      const isCr = cr !== -1 && (lf === -1 || cr < lf);
      const to = isCr ? cr : lf;
      if (this.#partBytes > 0) this.#endLine(bytes, to);
      else this.#line(bytes, from, to);
      from = to + 1;
      if (isCr && bytes[from] === LF) from += 1;
      else if (isCr && from === bytes.length) this.#isAfterCr = true;
      if (cr !== -1 && cr < from) cr = bytes.indexOf(CR, from);
      if (lf !== -1 && lf < from) lf = bytes.indexOf(LF, from);
    }
    if (from < bytes.length) this.#keep(bytes.subarray(from));
  }

  /** An event has begun and its line has not ended yet; a comment is none. */
  get isAmidst(): boolean {
    return this.#partBytes > 0 && this.#parts[0]?.[0] !== COLON;
  }

  /** The body has ended: what stands there without a blank line behind it is an event too. */
  end(): void {
    if (this.#partBytes > 0) this.#endLine(Buffer.alloc(0), 0);
    this.#dispatch();
  }

  #keep(rest: Buffer): void {
    this.#partBytes += rest.length;
    if (this.#partBytes > MAX_EVENT_BYTES) throw new RangeError('an event is too long');
    this.#parts.push(rest);
  }

  /** The line that ends here began in earlier bytes. */
  #endLine(bytes: Buffer, to: number): void {
    this.#parts.push(bytes.subarray(0, to));
    const whole = Buffer.concat(this.#parts);
    this.#parts = [];
    this.#partBytes = 0;
    this.#line(whole, 0, whole.length);
  }

  #line(bytes: Buffer, from: number, to: number): void {
    let start = from;
    if (this.#isFirstLine) {
      this.#isFirstLine = false;
      if (bytes[start] === 0xef && bytes[start + 1] === 0xbb && bytes[start + 2] === 0xbf) start += 3;
    }
    if (start === to) return this.#dispatch();
    if (bytes[start] === COLON) return;
    // `data` and `event` are all that counts, and both have the colon at a place of its own.
    if (bytes[start + 4] === COLON || to - start === 4) {
      if (isData(bytes, start)) this.#add(bytes, start + (bytes[start + 5] === SPACE ? 6 : 5), to);
    } else if (bytes[start + 5] === COLON && bytes.toString('latin1', start, start + 5) === 'event')
      this.#name = bytes.toString('utf8', start + 6, to).trim();
  }

  #add(bytes: Buffer, from: number, to: number): void {
    const text = from < to ? bytes.toString('utf8', from, to) : '';
    this.#data = this.#hasData ? `${this.#data}\n${text}` : text;
    this.#hasData = true;
    if (this.#data.length > MAX_EVENT_BYTES) throw new RangeError('an event is too long');
  }

  #dispatch(): void {
    const data = this.#data;
    const name = this.#name;
    this.#data = '';
    this.#hasData = false;
    this.#name = '';
    if (data !== '' && data.trim() !== '') this.#onEvent(data, name);
  }
}

/** The letters of `data`, one by one: a text for each line would cost more than all else here. */
const isData = (bytes: Buffer, at: number): boolean =>
  bytes[at] === 0x64 && bytes[at + 1] === 0x61 && bytes[at + 2] === 0x74 && bytes[at + 3] === 0x61;
