/** Deeds on the same thing stand in line, so that those of one node never race each other in the store. */
import { refusal } from '../../src/domain/errors.ts';
import type { Reply } from '../../src/ports.ts';

/** Runs deeds with the same key one after the other, in the order of the calls; a failed one holds up nobody. */
export type Line = <T>(key: string, deed: () => Promise<Reply<T>>) => Promise<Reply<T>>;

/** Deeds that may stand in one line; a store that hangs would otherwise gather them without end. */
const MAX_IN_LINE = 1_000;

export function createLine(): Line {
  const lines = new Map<string, { length: number; last: Promise<unknown> }>();
  return (key, deed) => {
    const line = lines.get(key) ?? { length: 0, last: Promise.resolve() };
    if (line.length >= MAX_IN_LINE)
      return Promise.resolve({ ok: false, error: refusal('OVERLOADED', { retryAfterMs: 1_000 }) });
    const mine = line.last.then(deed, deed);
    const gone = (): void => {
      line.length -= 1;
      if (line.length === 0) lines.delete(key);
    };
    line.length += 1;
    line.last = mine;
    lines.set(key, line);
    mine.then(gone, gone);
    return mine;
  };
}
