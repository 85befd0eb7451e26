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
 * boxed time costs 80. An idle session's log is most of what it weighs.
 */
export function createReplayLog(): ReplayLog {
  let types: string[] = [];
  let offsets: number[] = [];
  let taskIds: (string | undefined)[] = [];
  let datas: unknown[] = [];
  let startMs = 0;
  let units = 0;
  let last = 0;

  /** The kept frame at a place; the newest has the last number. */
  function frameAt(at: number): Frame {
    return {
      type: types[at] ?? '',
      seq: last - types.length + 1 + at,
      atMs: startMs + (offsets[at] ?? 0),
      taskId: taskIds[at],
      data: datas[at],
    };
  }

  function trim(): void {
    if (types.length <= MAX_FRAMES && units <= MAX_UNITS) return;
    // A quarter goes at once, so that a long stream does not move the arrays at every frame.
    let drop = 0;
    while (drop < types.length - 1 && (types.length - drop > MAX_FRAMES * 0.75 || units > MAX_UNITS * 0.75)) {
      units -= unitsOf(datas[drop]);
      drop += 1;
    }
    types = types.slice(drop);
    offsets = offsets.slice(drop);
    taskIds = taskIds.slice(drop);
    datas = datas.slice(drop);
  }

  /** Where a turn's own frames begin: walked back to, so that a long log costs the end of a turn nothing. */
  function startOf(taskId: string): number {
    for (let at = types.length - 1; at > 0; at -= 1) {
      if (taskIds[at] !== taskId) continue;
      if (types[at] === 'execution.started' || types[at] === 'chat.accepted') return at;
    }
    return 0;
  }

  return {
    seq: () => last,
    append(type, atMs, taskId, data) {
      if (last === 0) startMs = atMs;
      last += 1;
      types.push(type);
      offsets.push(atMs - startMs);
      taskIds.push(taskId);
      datas.push(data);
      units += unitsOf(data);
      trim();
      return { type, seq: last, atMs, taskId, data };
    },
    after(seq) {
      const missing = last - seq;
      if (missing < 0 || missing > types.length) return null;
      return Array.from({ length: missing }, (_, index) => frameAt(types.length - missing + index));
    },
    compact(taskId, text) {
      let from = 0;
      const slices: [at: number, content: string][] = [];
      for (let at = startOf(taskId); at < types.length; at += 1) {
        if (types[at] !== 'chat.delta' || taskIds[at] !== taskId) continue;
        const content = contentOf(datas[at]);
        if (content === undefined || !text.startsWith(content, from)) return;
        // A slice of a string points into it; the copy the delta came with can be freed.
        slices.push([at, text.slice(from, from + content.length)]);
        from += content.length;
      }
      for (const [at, content] of slices) datas[at] = { content };
    },
  };
}

function contentOf(data: unknown): string | undefined {
  if (typeof data !== 'object' || data === null || !('content' in data)) return undefined;
  return typeof data.content === 'string' ? data.content : undefined;
}
