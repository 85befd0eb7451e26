/**
 * Looks names up beside libuv's threads, which `getaddrinfo` would hold for as long as a name server is silent: those
 * of files, and of the look-ups of everybody else's connections, are four in all.
 */
import { Resolver } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { LRUCache } from 'lru-cache';
import type { Resolve, ResolvedAddress } from './addresses.ts';

interface NameOptions {
  /** Name servers, as `address:port`; by default the machine's, read anew for each look-up. */
  readonly servers?: readonly string[];
  /** The table of names beside them. */
  readonly hostsFile?: string;
  /** A name that has not been found after this long can not be found now. */
  readonly deadlineMs?: number;
}

const DEADLINE_MS = 4_000;
/** Of one question to one server. */
const QUESTION_MS = 1_500;
const TRIES = 2;
/** When one family is there, the other is waited for so long. */
const OTHER_FAMILY_MS = 500;
/** How long a name is remembered: at most that, and what its server says; and one that was not found. */
const MAX_FOUND_MS = 30_000;
const NOT_FOUND_MS = 3_000;
const MAX_NAMES = 1_000;

/** What a look-up came to, and until when that is believed. */
type Found = { readonly addresses: readonly ResolvedAddress[] } | { readonly error: Error };

/** Makes a look-up. One question at a time is asked of a name, whoever wants it. */
export function createResolve({
  servers,
  hostsFile = '/etc/hosts',
  deadlineMs = DEADLINE_MS,
}: NameOptions = {}): Resolve {
  const known = new LRUCache<string, Found>({ max: MAX_NAMES });
  const asking = new Map<string, Promise<Found>>();

  async function find(name: string): Promise<Found> {
    const listed = await listedIn(hostsFile, name);
    if (listed.length > 0) return remember(name, { addresses: listed }, MAX_FOUND_MS);
    try {
      const { addresses, ttlMs } = await askServers(name, servers, deadlineMs);
      return remember(name, { addresses }, Math.min(ttlMs, MAX_FOUND_MS));
    } catch (cause) {
      const error = cause instanceof Error ? cause : new Error(String(cause));
      return remember(name, { error }, NOT_FOUND_MS);
    }
  }

  function ask(name: string): Promise<Found> {
    const asked = asking.get(name) ?? find(name).finally(() => asking.delete(name));
    asking.set(name, asked);
    return asked;
  }

  function remember(name: string, found: Found, ms: number): Found {
    if (ms > 0) known.set(name, found, { ttl: ms });
    return found;
  }

  return async (hostname) => {
    const name = hostname.toLowerCase().replace(/\.$/, '');
    if (isIP(name) !== 0) return [addressOf(name)];
    if (name === 'localhost' || name.endsWith('.localhost')) return LOOPBACK;
    // No server needs to be asked for a name that is nobody's (RFC 6761).
    if (name === '' || name.endsWith('.invalid')) throw notFound(hostname);
    const found = known.get(name) ?? (await ask(name));
    if ('error' in found) throw found.error;
    return found.addresses;
  };
}

/** As the machine resolves names, `/etc/hosts` included: what it says is checked all the same. */
export const systemResolve: Resolve = createResolve();

const addressOf = (address: string): ResolvedAddress => ({ address, family: isIP(address) });
const LOOPBACK: readonly ResolvedAddress[] = ['127.0.0.1', '::1'].map(addressOf);

const notFound = (hostname: string, code = 'ENOTFOUND'): Error =>
  Object.assign(new Error(`${hostname} was not found: ${code}`), { code });

/** A file that can not be read lists nothing. */
async function listedIn(file: string, name: string): Promise<readonly ResolvedAddress[]> {
  const text = await readFile(file, 'utf8').catch(() => '');
  return text.split('\n').flatMap((line) => {
    const [address = '', ...names] = line.replace(/#.*/, '').trim().split(/\s+/);
    return isIP(address) !== 0 && names.some((one) => one.toLowerCase() === name) ? [addressOf(address)] : [];
  });
}

interface Answered {
  readonly addresses: readonly ResolvedAddress[];
  readonly ttlMs: number;
}

/** Both families side by side: one that fails or is late does not spoil the other. */
async function askServers(
  name: string,
  servers: readonly string[] | undefined,
  deadlineMs: number,
): Promise<Answered> {
  const resolver = new Resolver({ timeout: QUESTION_MS, tries: TRIES });
  if (servers) resolver.setServers(servers);
  const questions = [resolver.resolve4(name, { ttl: true }), resolver.resolve6(name, { ttl: true })];
  const answered: { readonly address: string; readonly ttl: number }[] = [];
  const errors: Error[] = [];
  let end = (): void => {};
  const over = new Promise<void>((resolve) => {
    end = resolve;
  });
  let timer = setTimeout(end, deadlineMs);
  const settled = questions.map((question) =>
    question.then(
      (records) => {
        answered.push(...records);
        clearTimeout(timer);
        timer = setTimeout(end, OTHER_FAMILY_MS);
      },
      (error: Error) => errors.push(error),
    ),
  );
  await Promise.race([over, Promise.all(settled)]);
  clearTimeout(timer);
  resolver.cancel();
  if (answered.length === 0) throw notFound(name, codeOf(errors));
  return {
    addresses: answered.map(({ address }) => addressOf(address)),
    ttlMs: Math.min(...answered.map(({ ttl }) => ttl)) * 1_000,
  };
}

/** A name without addresses is not found; what went wrong counts before that. */
function codeOf(errors: readonly Error[]): string {
  const codes = errors.map((error) => ('code' in error ? String(error.code) : 'EFAIL'));
  const other = codes.find((code) => code !== 'ENODATA' && code !== 'ENOTFOUND');
  return other ?? (codes.length > 0 ? 'ENOTFOUND' : 'ETIMEOUT');
}
