/** Finds the events of a text/event-stream in its bytes, however they were cut, and as people really write them. */

/** An event without its end may grow to so many bytes; a whole completion fits many times. */
const MAX_EVENT_BYTES = 16 * 1024 * 1024;

const LF = 10;
const CR = 13;
const COLON = 58;
const SPACE = 32;

/** `name` is that of the `event:` field, '' without one; `data` is never blank. */
export type OnEvent = (data: string, name: string) => void;

export interface EventScan {
  /** Reads on. Calls `onEvent` for each event that is whole now. Throws RangeError where one event outgrows memory. */
  push(bytes: Buffer): void;
  /** The body has ended: what stands there without a blank line behind it is an event too. */
  end(): void;
}

/**
 * Lines end in LF, CR LF or CR (WHATWG HTML, 9.2.6), and are decoded whole, so that no character is ever cut. A byte
 * order mark, comments, ids, retry times and events with blank data are passed over.
 */
export function createEventScan(onEvent: OnEvent): EventScan {
  /** A line that has not ended yet. */
  let parts: Buffer[] = [];
  let partBytes = 0;
  /** The last line ended in a CR that closed its bytes: an LF may follow that belongs to it. */
  let afterCr = false;
  let first = true;
  let name = '';
  let data: string[] = [];
  let dataUnits = 0;

  function dispatch(): void {
    if (data.length > 0) {
      const text = data.length === 1 ? (data[0] ?? '') : data.join('\n');
      data = [];
      dataUnits = 0;
      if (text.trim() !== '') onEvent(text, name);
    }
    name = '';
  }

  function line(bytes: Buffer, from: number, to: number): void {
    let start = from;
    if (first) {
      first = false;
      if (bytes[start] === 0xef && bytes[start + 1] === 0xbb && bytes[start + 2] === 0xbf) start += 3;
    }
    if (start === to) return dispatch();
    if (bytes[start] === COLON) return;
    // `data` and `event` are all that counts, and both have the colon at a place of its own.
    if (bytes[start + 4] === COLON || to - start === 4) {
      if (!isData(bytes, start)) return;
      const text = bytes.toString('utf8', Math.min(to, start + (bytes[start + 5] === SPACE ? 6 : 5)), to);
      dataUnits += text.length;
      if (dataUnits > MAX_EVENT_BYTES) throw new RangeError('an event is too long');
      data.push(text);
      return;
    }
    if (bytes[start + 5] === COLON && bytes.toString('latin1', start, start + 5) === 'event')
      name = bytes.toString('utf8', start + 6, to).trim();
  }

  /** The line that ends here began in earlier bytes. */
  function lineOf(bytes: Buffer, to: number): void {
    parts.push(bytes.subarray(0, to));
    const whole = Buffer.concat(parts);
    parts = [];
    partBytes = 0;
    line(whole, 0, whole.length);
  }

  return {
    push(bytes) {
      let from = 0;
      if (afterCr && bytes.length > 0) {
        afterCr = false;
        if (bytes[0] === LF) from = 1;
      }
      let cr = bytes.indexOf(CR, from);
      let lf = bytes.indexOf(LF, from);
      while (cr !== -1 || lf !== -1) {
        const isCr = cr !== -1 && (lf === -1 || cr < lf);
        const to = isCr ? cr : lf;
        if (partBytes > 0) lineOf(bytes, to);
        else line(bytes, from, to);
        from = to + 1;
        if (isCr && bytes[from] === LF) from += 1;
        else if (isCr && from === bytes.length) afterCr = true;
        if (cr !== -1 && cr < from) cr = bytes.indexOf(CR, from);
        if (lf !== -1 && lf < from) lf = bytes.indexOf(LF, from);
      }
      if (from >= bytes.length) return;
      const rest = bytes.subarray(from);
      partBytes += rest.length;
      if (partBytes > MAX_EVENT_BYTES) throw new RangeError('an event is too long');
      parts.push(rest);
    },
    end() {
      if (partBytes > 0) lineOf(Buffer.alloc(0), 0);
      dispatch();
    },
  };
}

/** The letters of `data`, one by one: a text for each line would cost more than all else here. */
const isData = (bytes: Buffer, at: number): boolean =>
  bytes[at] === 0x64 && bytes[at + 1] === 0x61 && bytes[at + 2] === 0x74 && bytes[at + 3] === 0x61;
