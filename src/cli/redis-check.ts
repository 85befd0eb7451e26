/** The part of `nooble doctor` that looks at REDIS_URL: the server, or the sentinels and the master they name. */
import {
  parseRedisUrl,
  type RedisAddress,
  type RedisAnswer,
  type RedisPlace,
  type RedisTarget,
  tlsAdvice,
} from '../domain/redis-url.ts';
import { type CliDeps, textOf } from './command.ts';

interface RedisFinding {
  readonly ok: boolean;
  /** What is there, or what is wrong and what to do. */
  readonly text: string;
}

type Ask = (target: RedisTarget, command: readonly [string, ...string[]]) => Promise<RedisAnswer>;
type Sentinels = Extract<RedisPlace['at'], { readonly kind: 'sentinels' }>;
type Problem = { readonly code: string; readonly problem: string };

const NOT_REDIS = 'it does not answer as Redis does';

/** Never rejects; no word of a password in it. Each question may take `timeoutMs`. */
export async function checkRedisUrl(
  askRedis: CliDeps['askRedis'],
  url: string,
  timeoutMs: number,
): Promise<RedisFinding> {
  const ask: Ask = (target, command) => askRedis(target, command, timeoutMs);
  try {
    const place = parseRedisUrl(url);
    return place.at.kind === 'server'
      ? await checkServer(ask, place, place.at.address)
      : await checkSentinels(ask, place, place.at);
  } catch (error) {
    return { ok: false, text: textOf(error) };
  }
}

async function checkServer(
  ask: Ask,
  { secure, credentials, tlsFiles }: RedisPlace,
  address: RedisAddress,
): Promise<RedisFinding> {
  const answer = await ask({ address, credentials, tlsFiles: secure ? tlsFiles : undefined }, ['ping']);
  if (answer.ok && answer.reply === 'PONG') return { ok: true, text: 'it answers' };
  const problem = answer.ok ? { code: NOT_REDIS, problem: NOT_REDIS } : answer;
  return { ok: false, text: `${problem.problem}; ${adviceFor(problem, secure)}` };
}

async function checkSentinels(
  ask: Ask,
  place: RedisPlace,
  { addresses, master, credentials, secure }: Sentinels,
): Promise<RedisFinding> {
  const tlsFiles = secure ? place.tlsFiles : undefined;
  const answers = await Promise.all(
    addresses.map(async (address) => {
      const question = ['sentinel', 'get-master-addr-by-name', master] as const;
      const answer = await ask({ address, credentials, tlsFiles }, question);
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
  const found = await checkServer(ask, place, named);
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
