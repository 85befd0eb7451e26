/** A chat port for tests: a real uWS app, and a directory that records what it is asked and answers as it is told. */

import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { afterEach } from 'node:test';
import type { Frame } from '../../src/domain/frames.ts';
import { type TaskId, taskIdSchema } from '../../src/domain/ids.ts';
import { TIER_TABLE } from '../../src/domain/tiers.ts';
import type { Caller, CancelReply, SayReply, TurnRequest } from '../../src/domain/turn.ts';
import type { Client, ResumePoint } from '../../src/ports/sessions.ts';
import type { Metrics } from '../../src/ports/telemetry.ts';
import { openServer } from '../../transports/http/adapter.ts';
import { type Chat, type ChatSettings, mountChat } from '../../transports/websocket/chat.ts';
import { type AccessSettings, createProxyCheck } from '../../transports/wire/access.ts';
import { scriptedDirectory } from './http-node.ts';
import { logTo, uncounted, untraced } from './quiet.ts';
import { accessIn } from './tokens.ts';

export interface Attached {
  readonly caller: Caller;
  readonly sessionId: string;
  readonly client: Client;
  readonly resume: ResumePoint | undefined;
}

/** The port's test double. Attached clients get a `session.ready`, as the real one promises. */
function recordingDirectory() {
  const attached: Attached[] = [];
  const detached: string[] = [];
  const said: TurnRequest[] = [];
  const cancelled: { tenantId: string; taskId: string }[] = [];
  const events = new EventEmitter();
  const recording = {
    ...scriptedDirectory().directory,
    ...{ attached, detached, said, cancelled },
    onSay: ({ taskId }: TurnRequest): SayReply | Promise<SayReply> => ({
      ok: true,
      taskId,
      accepted: { status: 'processing', position: 0 },
    }),
    onCancel: (taskId: TaskId): CancelReply => ({ ok: true, taskId, status: 'cancelled', abortMs: 1 }),
    onAttach: (client: Client, sessionId: string): void =>
      client.send(event('session.ready', undefined, { session_id: sessionId })),
    attach(caller: Caller, sessionId: string, client: Client, resume: ResumePoint | undefined): void {
      attached.push({ caller, sessionId, client, resume });
      recording.onAttach(client, sessionId);
    },
    detach(_tenantId: string, _sessionId: string, clientId: string): void {
      detached.push(clientId);
      events.emit('detached');
    },
    /** Resolves once `count` clients have been detached. */
    async detachedClients(count: number): Promise<void> {
      while (detached.length < count) await once(events, 'detached');
    },
    async say(request: TurnRequest): Promise<SayReply> {
      said.push(request);
      return recording.onSay(request);
    },
    async cancel(tenantId: string, taskId: TaskId): Promise<CancelReply> {
      cancelled.push({ tenantId, taskId });
      return recording.onCancel(taskId);
    },
  };
  return recording;
}

export const event = (type: string, seq: number | undefined, data: unknown): Frame => ({
  type,
  seq,
  atMs: Date.now(),
  taskId: 't-1',
  data,
});

export interface ChatPort {
  readonly url: string;
  readonly directory: ReturnType<typeof recordingDirectory>;
  readonly chat: Chat;
  /** Codes of the sockets that have closed, in order. */
  readonly closeCodes: readonly number[];
  /** Everything logged, as one text. */
  logged(): string;
  readonly state: { draining: boolean; now: () => number };
  close(): void;
}

export interface PortOptions {
  readonly mode?: AccessSettings['mode'];
  readonly sockets?: Partial<ChatSettings['sockets']>;
  readonly origins?: readonly string[];
  readonly freeSockets?: number;
}

/** Opens a port on 127.0.0.1, at a number that the system picks. */
async function openChatPort(options: PortOptions = {}): Promise<ChatPort> {
  const directory = recordingDirectory();
  const state = { draining: false, now: Date.now };
  const clock = { now: () => state.now() };
  const closeCodes: number[] = [];
  const lines: string[] = [];
  const log = logTo(({ fields, text }) => lines.push(`${text} ${JSON.stringify(fields)}`));
  const metrics: Metrics = { ...uncounted, socketClosed: (code) => void closeCodes.push(code) };
  const tiers = {
    ...TIER_TABLE,
    free: { ...TIER_TABLE.free, sockets: options.freeSockets ?? TIER_TABLE.free.sockets },
  };
  let tasks = 0;
  const server = openServer();
  const chat = mountChat(server.app, {
    directory,
    access: accessIn(options.mode ?? 'open', clock),
    proxied: createProxyCheck({ mode: options.mode ?? 'open', allowInsecure: false }),
    refusals: untraced,
    settings: {
      sockets: {
        pingIntervalMs: 30_000,
        pingTimeoutMs: 10_000,
        max: 50_000,
        deltaWindowMs: 15,
        ...options.sockets,
      },
      tiers,
      defaultTier: 'professional',
      access: { allowedOrigins: [...(options.origins ?? [])] },
    },
    log,
    metrics,
    clock,
    draining: () => state.draining,
    newTaskId: () => {
      tasks += 1;
      return taskIdSchema.parse(`made-${tasks}`);
    },
  });
  const number = await server.listen('127.0.0.1', 0);
  return {
    url: `ws://127.0.0.1:${number}`,
    directory,
    chat,
    closeCodes,
    logged: () => lines.join('\n'),
    state,
    close: () => server.close(),
  };
}

/** Opens ports for the tests of a file, one each. After a test every client is detached, once, and counted off. */
export function portPerTest(): (options?: PortOptions) => Promise<ChatPort> {
  let port: ChatPort | undefined;
  afterEach(async () => {
    if (!port) return;
    const { chat, directory, close } = port;
    port = undefined;
    const attached = directory.attached.length;
    close();
    await directory.detachedClients(attached);
    assert.equal(chat.count(), 0);
    assert.equal(chat.stats().tenants, 0);
    assert.equal(new Set(directory.detached).size, attached);
  });
  return async (options) => {
    port = await openChatPort(options);
    return port;
  };
}
