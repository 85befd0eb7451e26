/** Asks a Redis for a sign of life over a bare socket, so that `nooble doctor` needs no client of it. */
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

const DEFAULT_PORT = 6379;

/** Sends AUTH (where the URL has a password) and PING. Resolves to what is wrong, or null. */
export function pingRedis(text: string, timeoutMs: number): Promise<string | null> {
  const url = new URL(text);
  const host = url.hostname.replace(/^\[|\]$/g, '') || '127.0.0.1';
  const port = Number(url.port || DEFAULT_PORT);
  const auth = authOf(url);
  const commands = [...(auth ? [auth] : []), ['PING']];
  return new Promise((resolve) => {
    const socket: Socket =
      url.protocol === 'rediss:' ? connectTls({ host, port, servername: host }) : connectTcp({ host, port });
    let answer = '';
    const end = (problem: string | null): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(problem);
    };
    const timer = setTimeout(() => end(`no answer within ${timeoutMs} ms`), timeoutMs);
    socket.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? 'the connection failed'));
    socket.on('close', () => end('it closed the connection'));
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1');
      const lines = answer.split('\r\n').slice(0, -1);
      const refused = lines.find((line) => line.startsWith('-'));
      if (refused !== undefined) end(refused.slice(1, 120));
      else if (lines.length >= commands.length)
        end(lines.at(-1) === '+PONG' ? null : 'it does not answer as Redis does');
      else if (answer.length > 1_024) end('it does not answer as Redis does');
    });
    socket.write(commands.map(resp).join(''));
  });
}

function authOf(url: URL): readonly string[] | undefined {
  if (url.password === '') return undefined;
  const user = decodeURIComponent(url.username);
  const password = decodeURIComponent(url.password);
  return user === '' ? ['AUTH', password] : ['AUTH', user, password];
}

/** A command in Redis's own protocol. */
const resp = (words: readonly string[]): string =>
  `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`;
