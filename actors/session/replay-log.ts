/** The numbered frames of a session, kept for clients that reconnect: bounded, and small once a turn has ended. */
import type { Frame } from '../../src/domain/frames.ts';

interface ReplayLog {
  /** The last number given out; 0 before the first. */
  seq(): number;
  append(type: string, atMs: number, taskId: string, data: unknown): Frame;
  /** The frames after a number, or null where some of them are gone or the number was never given out. */
  after(seq: number): readonly Frame[] | null;
  /** Lets a finished turn's deltas share the memory of its whole text, where they add up to it. */
  compact(taskId: string, text: string): void;
}

/** Bounds of what one session keeps: frames, and UTF-16 units of the texts in them. */
export const MAX_FRAMES = 1_000;
export const MAX_UNITS = 256 * 1024;

/** Rough size of a frame: its texts, and something for the rest. */
function unitsOf(data: unknown): number {
  if (typeof data !== 'object' || data === null) return 0;
  let units = 64;
  for (const value of Object.values(data)) if (typeof value === 'string') units += value.length;
  return units;
}

/**
 * Kept as columns, with times as offsets: a frame costs 32 bytes and its data, where an object of its own with a
 * boxed time costs 80. An idle session's log is most of what it weighs, hence also a class and no closures.
 */
class Columns implements ReplayLog {
  #types: string[] = [];
  #offsets: number[] = [];
  #taskIds: (string | undefined)[] = [];
  #datas: unknown[] = [];
  #startMs = 0;
  #units = 0;
  #last = 0;

  seq(): number {
    return this.#last;
  }

  append(type: string, atMs: number, taskId: string, data: unknown): Frame {
    if (this.#last === 0) this.#startMs = atMs;
    this.#last += 1;
    this.#types.push(type);
    this.#offsets.push(atMs - this.#startMs);
    this.#taskIds.push(taskId);
    this.#datas.push(data);
    this.#units += unitsOf(data);
    this.#trim();
    return { type, seq: this.#last, atMs, taskId, data };
  }

  after(seq: number): readonly Frame[] | null {
    const missing = this.#last - seq;
    const kept = this.#types.length;
    if (missing < 0 || missing > kept) return null;
    return Array.from({ length: missing }, (_, index) => this.#frameAt(kept - missing + index));
  }

  compact(taskId: string, text: string): void {
    let from = 0;
    const slices: [at: number, content: string][] = [];
    for (let at = this.#startOf(taskId); at < this.#types.length; at += 1) {
      if (this.#types[at] !== 'chat.delta' || this.#taskIds[at] !== taskId) continue;
      const content = contentOf(this.#datas[at]);
      if (content === undefined || !text.startsWith(content, from)) return;
      // A slice of a string points into it; the copy the delta came with can be freed.
      slices.push([at, text.slice(from, from + content.length)]);
      from += content.length;
    }
    for (const [at, content] of slices) this.#datas[at] = { content };
  }

  /** The frame at a place; the newest has the last number. */
  #frameAt(at: number): Frame {
    return {
      type: this.#types[at] ?? '',
      seq: this.#last - this.#types.length + 1 + at,
      atMs: this.#startMs + (this.#offsets[at] ?? 0),
      taskId: this.#taskIds[at],
      data: this.#datas[at],
    };
  }

  #trim(): void {
    const count = this.#types.length;
    if (count <= MAX_FRAMES && this.#units <= MAX_UNITS) return;
    // A quarter goes at once, so that a long stream does not move the arrays at every frame.
    let drop = 0;
    while (drop < count - 1 && (count - drop > MAX_FRAMES * 0.75 || this.#units > MAX_UNITS * 0.75)) {
      this.#units -= unitsOf(this.#datas[drop]);
      drop += 1;
    }
    this.#types = this.#types.slice(drop);
    this.#offsets = this.#offsets.slice(drop);
    this.#taskIds = this.#taskIds.slice(drop);
    this.#datas = this.#datas.slice(drop);
  }

  /** Where a turn's own frames begin: walked back to, so that a long log costs the end of a turn nothing. */
  #startOf(taskId: string): number {
    for (let at = this.#types.length - 1; at > 0; at -= 1) {
      if (this.#taskIds[at] !== taskId) continue;
      if (this.#types[at] === 'execution.started' || this.#types[at] === 'chat.accepted') return at;
    }
    return 0;
  }
}

export const createReplayLog = (): ReplayLog => new Columns();

function contentOf(data: unknown): string | undefined {
  if (typeof data !== 'object' || data === null || !('content' in data)) return undefined;
  return typeof data.content === 'string' ? data.content : undefined;
}
