/** Answers that many may ask for at once, so that asking costs the node little: documents made once, figures made for all. */
import { createHash } from 'node:crypto';
import { setTimeout as later } from 'node:timers/promises';

/** An answer that never changes, as bytes with an ETag: 304 to whoever has it. */
export function fixedJson(value: unknown): (ifNoneMatch: string | undefined) => Response {
  const bytes = Buffer.from(JSON.stringify(value));
  const tag = createHash('sha256').update(bytes).digest('base64url').slice(0, 22);
  const headers = { ETag: `"${tag}"`, 'Cache-Control': 'no-cache' };
  return (ifNoneMatch) =>
    namesTag(ifNoneMatch ?? '', tag)
      ? new Response(null, { status: 304, headers })
      : new Response(bytes, { headers: { ...headers, 'Content-Type': 'application/json' } });
}

/** Proxies that compress make our tags weak; for reading that is the same. */
const namesTag = (header: string, tag: string): boolean =>
  header.split(',').some((each) => ['*', `"${tag}"`, `W/"${tag}"`].includes(each.trim()));

/**
 * Makes something anew for whoever asks, the same for all who ask before it is begun. Between two makings there is
 * `rest` times as long as the last one took: with 9, they take a tenth of the time at most, and nobody gets an old one.
 */
export function shared<T>(make: () => T | Promise<T>, rest = 0): () => Promise<T> {
  let next: Promise<T> | undefined;
  let freeAtMs = 0;
  const begin = async (): Promise<T> => {
    const waitMs = freeAtMs - performance.now();
    // In the next turn of the loop at the soonest: what came with this one shares it.
    await later(Math.max(0, waitMs));
    next = undefined;
    const startedMs = performance.now();
    try {
      return await make();
    } finally {
      const endedMs = performance.now();
      freeAtMs = endedMs + (endedMs - startedMs) * rest;
    }
  };
  return () => {
    next ??= begin();
    return next;
  };
}
