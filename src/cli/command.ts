/** The dependencies of every command of the command line, and the errors that end one. */
import type { RedisAnswer, RedisTarget } from '../domain/redis-url.ts';
import type { ClusterAdmin } from '../ports/cluster-admin.ts';
import type { AgentStore, Archive } from '../ports/management.ts';
import type { DeadLetter, DeadLetters } from '../ports/transport.ts';
import type { Settings } from '../settings.ts';

/** The part of a node's stores that commands work on. */
export interface CliStores {
  readonly conversations: { ping(): Promise<void> };
  readonly agents: AgentStore;
  readonly archive: Archive;
  /** Absent where a node has the database to itself. */
  readonly cluster?: ClusterAdmin;
  close(): Promise<void>;
}

/** The dead actions of a Redis. Rejections are RefusalErrors: TRANSPORT_UNAVAILABLE. */
export interface CliDead {
  readonly letters: DeadLetters;
  /** The type and tenant in a dead body; null where it can not be read. */
  labelOf(letter: DeadLetter): { readonly type: string; readonly tenantId: string } | null;
  close(): Promise<void>;
}

export interface CliDeps {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** One line of the answer. */
  readonly out: (line: string) => void;
  /** One line about an error, or about progress. */
  readonly err: (line: string) => void;
  /** Opens what DATABASE_URL names. */
  readonly openStores: (settings: Settings) => Promise<CliStores>;
  /** Sends one command to a Redis or a sentinel. Rejects only where a TLS file can not be read. */
  readonly askRedis: (
    target: RedisTarget,
    command: readonly [string, ...string[]],
    timeoutMs: number,
  ) => Promise<RedisAnswer>;
  /** Asks a model for one token. Never rejects; `text` says what came back, with status and code, and holds no key. */
  readonly askModel: (
    models: Settings['models'],
    question: { readonly provider: string; readonly model: string; readonly timeoutMs: number },
  ) => Promise<{ readonly isAnswer: boolean; readonly text: string }>;
  /** Connects to the Redis of that URL; rejects with the reason where the first try fails. */
  readonly openDead: (redisUrl: string) => Promise<CliDead>;
}

/** 0: done. 1: it did not work. 2: the command line or a setting is wrong. */
export type ExitCode = 0 | 1 | 2;

/** Ends a command with one line of advice. Thrown by commands, caught by the dispatcher alone. */
export class CommandError extends Error {
  readonly exitCode: 1 | 2;
  constructor(message: string, exitCode: 1 | 2 = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** A command line that was not understood. */
export const usage = (message: string): CommandError =>
  new CommandError(`${message} \`nooble help\` shows how.`, 2);

/** An exception's text. */
export const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** A URL as it may be shown: passwords and query strings stay out. */
export function withoutSecrets(text: string): string {
  if (!/^[a-z+]+:\/\//.test(text)) return text;
  // Several hosts, as sentinels have, are no URL to the parser.
  if (!URL.canParse(text)) return text.replace(/\/\/[^/?#]*@/, '//…@').replace(/\?.*$/, '');
  const url = new URL(text);
  if (url.password !== '') url.password = '…';
  url.search = '';
  return decodeURI(url.href);
}
