/** The numbered frames of a session, kept for clients that reconnect: bounded, and small once a turn has ended. */
import type { Frame } from '../src/domain/frames.ts';

export interface ReplayLog {
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

export function createReplayLog(): ReplayLog {
  let frames: Frame[] = [];
  let units = 0;
  let last = 0;

  function trim(): void {
    if (frames.length <= MAX_FRAMES && units <= MAX_UNITS) return;
    // A quarter goes at once, so that a long stream does not move the array at every frame.
    let drop = 0;
    while (
      drop < frames.length - 1 &&
      (frames.length - drop > MAX_FRAMES * 0.75 || units > MAX_UNITS * 0.75)
    ) {
      units -= unitsOf(frames[drop]?.data);
      drop += 1;
    }
    frames = frames.slice(drop);
  }

  /** Where a turn's own frames begin: walked back to, so that a long log costs the end of a turn nothing. */
  function startOf(taskId: string): number {
    for (let at = frames.length - 1; at > 0; at -= 1) {
      const frame = frames[at];
      if (frame?.taskId !== taskId) continue;
      if (frame.type === 'execution.started' || frame.type === 'chat.accepted') return at;
    }
    return 0;
  }

  return {
    seq: () => last,
    append(type, atMs, taskId, data) {
      last += 1;
      const frame: Frame = { type, seq: last, atMs, taskId, data };
      frames.push(frame);
      units += unitsOf(data);
      trim();
      return frame;
    },
    after(seq) {
      const missing = last - seq;
      if (missing < 0 || missing > frames.length) return null;
      return missing === 0 ? [] : frames.slice(frames.length - missing);
    },
    compact(taskId, text) {
      let from = 0;
      const slices: [at: number, frame: Frame][] = [];
      for (let at = startOf(taskId); at < frames.length; at += 1) {
        const frame = frames[at];
        if (frame?.type !== 'chat.delta' || frame.taskId !== taskId) continue;
        const { data } = frame;
        if (
          typeof data !== 'object' ||
          data === null ||
          !('content' in data) ||
          typeof data.content !== 'string'
        )
          return;
        if (!text.startsWith(data.content, from)) return;
        // A slice of a string points into it; the copy the delta came with can be freed.
        slices.push([at, { ...frame, data: { content: text.slice(from, from + data.content.length) } }]);
        from += data.content.length;
      }
      for (const [at, frame] of slices) frames[at] = frame;
    },
  };
}
