/** The model endpoint in its own process, and the processes that stream from it and cancel, seen from the bench. */
import type { ChildProcess } from 'node:child_process';
import { z } from 'zod';
import { type Core, end, freePort, heard, start, untilReady } from '../kit/process.ts';

const closedSchema = z.object({ turn: z.string(), atNs: z.string() });
export interface Stub {
  readonly pid: number;
  readonly port: number;
  /** When each turn's connection was closed. */
  readonly closed: Map<string, bigint>;
  end(): Promise<void>;
}

export interface StubAnswers {
  /** Between two tokens, and before the first. */
  readonly tokenMs: number;
  /** Of an answer; no end unless it is given. */
  readonly tokens?: number;
  /** Calls of a tool that come first. */
  readonly calls?: number;
}

/** Starts one on the load core. */
export async function startStub({ tokenMs, tokens, calls = 0 }: StubAnswers): Promise<Stub> {
  const port = await freePort();
  const child = start({
    args: ['bench/peers/openai-stub.ts'],
    core: 'load',
    env: {
      PORT: String(port),
      BENCH_TOKEN_MS: String(tokenMs),
      BENCH_CALLS: String(calls),
      ...(tokens === undefined ? {} : { BENCH_TOKENS: String(tokens) }),
    },
  });
  const closed = new Map<string, bigint>();
  child.on('message', (message) => {
    const { turn, atNs } = closedSchema.parse(message);
    closed.set(turn, BigInt(atNs));
  });
  await untilReady(child, `http://127.0.0.1:${port}/`);
  return { pid: child.pid ?? 0, port, closed, end: () => end(child) };
}

/** A process of its own, so that its heap and its timers are nobody else's. */
export async function startCancelling(how: 'node' | 'fetch', core: Core): Promise<ChildProcess> {
  const child = start({ args: ['bench/load/cancelling.ts', how], core });
  await heard(child, (message) => message, 30_000);
  return child;
}

/** What makes a node use the stub as its model. */
export const stubSettings = ({ port }: Stub) => ({
  DEFAULT_PROVIDER: 'openai',
  OPENAI_API_KEY: 'x',
  OPENAI_BASE_URL: `http://127.0.0.1:${port}/v1`,
});

/** A small model, so that every tier may use it. */
export const STUB_MODEL = 'gpt-4.1-mini';
