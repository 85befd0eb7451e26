/** The part of `nooble doctor` that looks at REDIS_URL: the server, or the sentinels and whom they call master. */
import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import { parseRedisUrl, type RedisAddress, type RedisPlace, tlsAdvice } from '../domain/redis-url.ts';
import { textOf } from './command.ts';
import { askRedis, pingRedis, type RedisDoor } from './redis-ping.ts';

interface RedisFinding {
  readonly ok: boolean;
  /** What is there, or what is wrong and what to do. */
  readonly text: string;
}

type Sentinels = Extract<RedisPlace['at'], { readonly kind: 'sentinels' }>;
type Problem = { readonly code: string; readonly problem: string };

/** Never rejects; no word of a password in it. Each question may take `timeoutMs`. */
export async function checkRedisUrl(url: string, timeoutMs: number): Promise<RedisFinding> {
  try {
    const place = parseRedisUrl(url);
    const tls = tlsOf(place);
    return place.at.kind === 'server'
      ? await checkServer(place, place.at.address, tls, timeoutMs)
      : await checkSentinels(place, place.at, tls, timeoutMs);
  } catch (error) {
    return { ok: false, text: textOf(error) };
  }
}

async function checkServer(
  { secure, credentials }: RedisPlace,
  address: RedisAddress,
  tls: ConnectionOptions,
  timeoutMs: number,
): Promise<RedisFinding> {
  const door: RedisDoor = { address, credentials, tls: secure ? tls : undefined };
  const problem = await pingRedis(door, timeoutMs);
  return problem === null
    ? { ok: true, text: 'it answers' }
    : { ok: false, text: `${problem.problem}; ${adviceFor(problem, secure)}` };
}

async function checkSentinels(
  place: RedisPlace,
  { addresses, master, credentials, secure }: Sentinels,
  tls: ConnectionOptions,
  timeoutMs: number,
): Promise<RedisFinding> {
  const question = ['SENTINEL', 'GET-MASTER-ADDR-BY-NAME', master];
  const answers = await Promise.all(
    addresses.map(async (address) => {
      const door: RedisDoor = { address, credentials, tls: secure ? tls : undefined };
      const answer = await askRedis(door, question, timeoutMs);
      return { name: nameOf(address), ...(answer.ok ? masterIn(answer.reply) : { problem: answer }) };
    }),
  );
  const silent = answers.flatMap(({ name, problem }) =>
    problem ? [`sentinel ${name}: ${problem.problem}`] : [],
  );
  const [named] = answers.flatMap(({ address }) => address ?? []);
  if (!named) {
    const [first] = answers.flatMap(({ problem }) => problem ?? []);
    const advice = first ? sentinelAdvice(first, secure) : 'look at REDIS_URL';
    return { ok: false, text: `no sentinel names a master: ${silent.join(', ')}; ${advice}` };
  }
  const found = await checkServer(place, named, tls, timeoutMs);
  const others = silent.length > 0 ? `; but ${silent.join(', ')}` : '';
  return { ok: found.ok, text: `the master is ${nameOf(named)}: ${found.text}${others}` };
}

const nameOf = ({ host, port }: RedisAddress): string => `${host.includes(':') ? `[${host}]` : host}:${port}`;

function masterIn(reply: unknown): { readonly address?: RedisAddress; readonly problem?: Problem } {
  const [host, port] = Array.isArray(reply) ? reply : [];
  if (typeof host === 'string' && /^\d{1,5}$/.test(String(port)))
    return { address: { host, port: Number(port) } };
  const problem =
    reply === null ? 'it knows no master of that name' : 'it does not answer as a sentinel does';
  return { problem: { code: problem, problem } };
}

/** What to do. `secure`: it was asked over TLS. */
function adviceFor({ code }: Problem, secure: boolean): string {
  const known = tlsAdvice(code, secure);
  if (known !== undefined) return known;
  if (code === 'NOAUTH' || code === 'WRONGPASS') return 'look at user and password in REDIS_URL';
  return 'start Redis there, or look at REDIS_URL';
}

function sentinelAdvice(problem: Problem, secure: boolean): string {
  if (problem.code === 'it knows no master of that name')
    return 'the name stands after the hosts in REDIS_URL, and in the sentinels under `sentinel monitor`';
  if (problem.code === 'NOAUTH' || problem.code === 'WRONGPASS')
    return 'look at sentinel_user and sentinel_password in REDIS_URL; those before the @ are for Redis itself';
  if (secure && /WRONG_VERSION_NUMBER|PACKET_LENGTH|no answer/.test(problem.code))
    return 'where sentinels speak no TLS: sentinel_tls=no in REDIS_URL';
  return adviceFor(problem, secure);
}

function tlsOf({ tlsFiles: { ca, cert, key } }: RedisPlace): ConnectionOptions {
  return {
    ...(ca ? { ca: readFileSync(ca) } : {}),
    ...(cert && key ? { cert: readFileSync(cert), key: readFileSync(key) } : {}),
  };
}
