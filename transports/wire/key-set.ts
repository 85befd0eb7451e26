/** The published keys that check tokens: kept while their endpoint is away, fetched anew when a token names another. */
import { createLocalJWKSet, errors, type JWTVerifyGetKey } from 'jose';
import { z } from 'zod';
import type { Clock } from '../../src/ports/telemetry.ts';

/** Keys older than this are fetched anew beside the requests; those that are known serve meanwhile. */
const FRESH_MS = 600_000;
/** An endpoint that says nothing is asked again only after this; one that fails at once costs less, and is asked sooner. */
const RETRY_SILENT_MS = 30_000;
const RETRY_FAILED_MS = 2_000;
const TIMEOUT_MS = 5_000;
/** Fetches for keys that nobody knows: so many at once, and one more each interval. Anybody can invent names of keys. */
const BURST = 5;
const REFILL_MS = 10_000;

/** Thrown where no key can be had: our trouble, not the token's. */
export class KeysUnavailable extends Error {}

type KeyLookup = ReturnType<typeof createLocalJWKSet>;

/** Finds the key of a token. Rejects with jose's errors for a token without one, with KeysUnavailable where nobody can say. */
export function createKeySet(url: string, clock: Clock): JWTVerifyGetKey {
  let keys: KeyLookup | undefined;
  let fetchedAtMs = 0;
  /** Until when the endpoint is not asked again; undefined where it has answered last. */
  let failedUntilMs: number | undefined;
  let pending: Promise<void> | undefined;
  let tokens = BURST;
  let refilledAtMs = clock.now();

  const mayRetry = (): boolean => failedUntilMs === undefined || clock.now() >= failedUntilMs;

  /** One fetch at a time. Never rejects: what it found is in `keys` and `failedUntilMs`. */
  function refresh(): Promise<void> {
    pending ??= fetchKeys(url)
      .then(
        (found) => {
          keys = found;
          fetchedAtMs = clock.now();
          failedUntilMs = undefined;
        },
        (error: unknown) => {
          const isSilent = error instanceof Error && error.name === 'TimeoutError';
          failedUntilMs = clock.now() + (isSilent ? RETRY_SILENT_MS : RETRY_FAILED_MS);
        },
      )
      .finally(() => {
        pending = undefined;
      });
    return pending;
  }

  /** Whether a token that names an unknown key is worth a fetch now. */
  function takeToken(): boolean {
    const gained = Math.floor((clock.now() - refilledAtMs) / REFILL_MS);
    tokens = Math.min(BURST, tokens + gained);
    refilledAtMs += gained * REFILL_MS;
    if (tokens < 1) return false;
    tokens -= 1;
    return true;
  }

  return async (header, token) => {
    if (keys) {
      if (clock.now() - fetchedAtMs >= FRESH_MS && mayRetry()) void refresh();
      try {
        return await keys(header, token);
      } catch (error) {
        if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
        if (!pending && mayRetry() && !takeToken()) throw error;
      }
    }
    if (pending || mayRetry()) await refresh();
    if (!keys || failedUntilMs !== undefined) throw new KeysUnavailable('the key set cannot be fetched');
    return keys(header, token);
  };
}

/** A set without keys is how an endpoint looks that is just being set up, not a wish to lock everybody out. */
const keySetSchema = z.object({ keys: z.array(z.looseObject({ kty: z.string() })).min(1) });

async function fetchKeys(url: string): Promise<KeyLookup> {
  const response = await fetch(url, {
    headers: { accept: 'application/json, application/jwk-set+json' },
    redirect: 'manual',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`the key set's endpoint answered ${response.status}`);
  }
  return createLocalJWKSet(keySetSchema.parse(await response.json()));
}
