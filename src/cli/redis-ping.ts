/** Asks a Redis, or a sentinel, over a bare socket, so that `nooble doctor` needs no client of it. */
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import type { RedisAddress, RedisCredentials } from '../domain/redis-url.ts';

const MAX_ANSWER = 1_024;
const NOT_REDIS = 'it does not answer as Redis does';

export interface RedisDoor {
  readonly address: RedisAddress;
  readonly credentials: RedisCredentials;
  /** Undefined: no TLS. */
  readonly tls: ConnectionOptions | undefined;
}

/** A text, null, or texts. */
type Reply = string | null | readonly Reply[];

type RedisAnswer =
  | { readonly ok: true; readonly reply: Reply }
  /** `code`: of Node, OpenSSL, or the first word of what Redis says; where it has none, what is wrong in words. */
  | { readonly ok: false; readonly code: string; readonly problem: string };

/** Sends AUTH (where there is a password) and the command. Never rejects. */
export function askRedis(
  { address, credentials, tls }: RedisDoor,
  command: readonly string[],
  timeoutMs: number,
): Promise<RedisAnswer> {
  const auth = authOf(credentials);
  const commands = [...(auth ? [auth] : []), command];
  const serverName = isIP(address.host) === 0 ? { servername: address.host } : {};
  return new Promise((resolve) => {
    const socket: Socket = tls
      ? connectTls({ ...tls, ...address, ...serverName })
      : connectTcp({ ...address });
    let answer = '';
    const end = (result: RedisAnswer): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(result);
    };
    const fail = (problem: string, code = problem): void => end({ ok: false, code, problem });
    const timer = setTimeout(() => fail(`no answer within ${timeoutMs} ms`), timeoutMs);
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const code = error.code ?? 'the connection failed';
      // OpenSSL's own message names places in its sources; other codes of TLS do not say which name, or what else.
      const more = tls && error.code?.startsWith('ERR_TLS') ? `: ${error.message.slice(0, 200)}` : '';
      fail(`${code}${more}`, code);
    });
    socket.on('close', () => fail('it closed the connection'));
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1');
      const replies = repliesOf(answer.split('\r\n').slice(0, -1));
      const refused = replies.find((reply) => typeof reply === 'string' && reply.startsWith('-'));
      if (typeof refused === 'string') fail(refused.slice(1, 120), refused.slice(1).split(' ')[0]);
      else if (replies.length >= commands.length) end({ ok: true, reply: replies.at(-1) ?? null });
      else if (answer.length > MAX_ANSWER || !/^([+\-:$*]|$)/.test(answer)) fail(NOT_REDIS);
    });
    socket.write(commands.map(resp).join(''));
  });
}

/** Resolves to null where it answers PING as it should. */
export async function pingRedis(
  door: RedisDoor,
  timeoutMs: number,
): Promise<{ readonly code: string; readonly problem: string } | null> {
  const answer = await askRedis(door, ['PING'], timeoutMs);
  if (!answer.ok) return answer;
  return answer.reply === '+PONG' ? null : { code: NOT_REDIS, problem: NOT_REDIS };
}

function authOf({ username, password }: RedisCredentials): readonly string[] | undefined {
  if (password === undefined) return undefined;
  return username === undefined ? ['AUTH', password] : ['AUTH', username, password];
}

/** A command in Redis's own protocol. */
const resp = (words: readonly string[]): string =>
  `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`;

/** The replies that are complete; simple ones keep their sign (+, -, :). What is no protocol is a reply of its own. */
function repliesOf(lines: readonly string[]): readonly Reply[] {
  const replies: Reply[] = [];
  let at = 0;
  while (at < lines.length) {
    const read = replyAt(lines, at);
    if (!read) return replies;
    replies.push(read.reply);
    at = read.next;
  }
  return replies;
}

function replyAt(
  lines: readonly string[],
  at: number,
): { readonly reply: Reply; readonly next: number } | null {
  const line = lines[at];
  if (line === undefined) return null;
  const count = /^[$*](-1|\d{1,4})$/.exec(line)?.[1];
  if (count === undefined) return { reply: line, next: at + 1 };
  if (count === '-1') return { reply: null, next: at + 1 };
  if (line.startsWith('$')) {
    const text = lines[at + 1];
    return text === undefined ? null : { reply: text, next: at + 2 };
  }
  const items: Reply[] = [];
  let next = at + 1;
  while (items.length < Number(count)) {
    const read = replyAt(lines, next);
    if (!read) return null;
    items.push(read.reply);
    next = read.next;
  }
  return { reply: items, next };
}
