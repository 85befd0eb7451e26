/** A real uWS server with the real HTTP edge over a directory that does what the test says. */

import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { createTurnObserver } from '../../actors/executions/turn-observer.ts';
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import { DEFAULT_AGENT_ID, sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import type { TurnRecord, TurnRequest } from '../../src/domain/turn.ts';
import type { Client, Directory } from '../../src/ports/sessions.ts';
import type { MessagePage, PageRequest } from '../../src/ports/store.ts';
import { mountHttp, openServer } from '../../transports/http/adapter.ts';
import { createHttpApp } from '../../transports/http/app.ts';
import { HTTP_LIMITS, type HttpLimits } from '../../transports/http/body-limits.ts';
import type { HttpDeps } from '../../transports/http/deps.ts';
import { createProxyCheck } from '../../transports/wire/access.ts';
import { collectingLog, untraced } from './quiet.ts';
import { accessIn } from './tokens.ts';

export const NOW_MS = Date.parse('2026-01-02T03:04:05.006Z');

/** A directory whose sessions are lists of clients and whose turns are what the test put there. */
export function scriptedDirectory() {
  const events = new EventEmitter();
  const clients = new Map<string, Client[]>();
  const turns = new Map<string, TurnRecord>();
  const pages = new Map<string, MessagePage>();
  const key = (tenantId: string, id: string): string => `${tenantId}/${id}`;
  const script = {
    events,
    turns,
    pages,
    said: [] as TurnRequest[],
    pagesAsked: [] as PageRequest[],
    /** The next `say` is refused with this. */
    refusal: undefined as ErrorData | undefined,
    /** The next call of anything throws. */
    breaks: false,
    /** What `say` waits for. */
    gate: Promise.resolve(),
    putTurn: (turn: TurnRecord) => turns.set(key(turn.tenantId, turn.taskId), turn),
    attached: (tenantId: string, sessionId: string): readonly Client[] =>
      clients.get(key(tenantId, sessionId)) ?? [],
    seq: 0,
    /** Sends a numbered frame to a session's clients. */
    emit(tenantId: string, sessionId: string, taskId: string, type: string, data: unknown): void {
      script.seq += 1;
      const frame = { type, seq: script.seq, atMs: NOW_MS, taskId, data };
      for (const client of [...(clients.get(key(tenantId, sessionId)) ?? [])]) client.send(frame);
    },
  };
  const attach = (tenantId: string, sessionId: string, client: Client): void => {
    clients.set(key(tenantId, sessionId), [...script.attached(tenantId, sessionId), client]);
    events.emit('attached', client.id);
  };
  const notFound = { ok: false, error: refusal('NOT_FOUND') } as const;
  const breaking = (): void => {
    if (script.breaks) throw new Error('canary: the directory broke');
  };
  const directory: Directory = {
    attach(caller, sessionId, client) {
      attach(caller.tenantId, sessionId, client);
      client.send({ type: 'session.ready', seq: undefined, atMs: NOW_MS, taskId: undefined, data: {} });
    },
    detach(tenantId, sessionId, clientId) {
      const left = script.attached(tenantId, sessionId).filter(({ id }) => id !== clientId);
      clients.set(key(tenantId, sessionId), left);
      events.emit('detached', clientId);
    },
    async say(request, observer) {
      breaking();
      script.said.push(request);
      const { caller, sessionId, taskId } = request;
      if (observer) attach(caller.tenantId, sessionId, observer);
      events.emit('said', request);
      await script.gate;
      if (script.refusal) return { ok: false, taskId, error: script.refusal };
      if (turns.has(key(caller.tenantId, taskId)))
        return { ok: true, taskId, accepted: { status: 'processing', position: 0, deduplicated: true } };
      const accepted = { status: 'processing', position: 0 } as const;
      script.emit(caller.tenantId, sessionId, taskId, 'chat.accepted', accepted);
      return { ok: true, taskId, accepted };
    },
    async cancel(tenantId, taskId) {
      const turn = turns.get(key(tenantId, taskId));
      if (!turn) return { taskId, ...notFound };
      const running = turn.status === 'processing';
      return { ok: true, taskId, status: running ? 'cancelled' : turn.status, abortMs: running ? 1.5 : 0 };
    },
    async turn(tenantId, taskId) {
      breaking();
      const turn = turns.get(key(tenantId, taskId));
      return turn ? { ok: true, value: turn } : notFound;
    },
    async messages(tenantId, sessionId, page) {
      script.pagesAsked.push(page);
      const value = pages.get(key(tenantId, sessionId));
      return value ? { ok: true, value } : notFound;
    },
    async forget(tenantId, sessionId) {
      return pages.delete(key(tenantId, sessionId)) ? { ok: true, value: null } : notFound;
    },
    push(tenantId, sessions, frame) {
      const named = sessions?.map((sessionId) => key(tenantId, sessionId));
      const all = [...clients.keys()].filter((each) => each.startsWith(key(tenantId, '')));
      const found = [...new Set(named ?? all)].filter((each) => clients.has(each));
      const sent = { ...frame, taskId: frame.taskId, seq: undefined, atMs: NOW_MS };
      for (const each of found) for (const client of clients.get(each) ?? []) client.send(sent);
      return found.length;
    },
    stats: () => ({
      tenants: 1,
      sessions: 2,
      draining: false,
      turns: {
        free: { running: 0, queued: 0 },
        advance: { running: 0, queued: 0 },
        professional: { running: 1, queued: 0 },
        enterprise: { running: 0, queued: 0 },
      },
      actors: [{ kind: 'session', alive: 2, depth: 0, deepest: 3, handled: 9, busyMs: 1.5 }],
    }),
  };
  return { ...script, script, directory };
}

export interface AskInit {
  readonly method?: string;
  readonly body?: unknown;
  readonly tenant?: string;
  readonly headers?: Record<string, string>;
}

/** Starts a node on a free port of loopback; `close`, called after `test` where given, proves that no request is open. */
export async function openHttpNode(
  test: { after(end: () => void): void } | undefined,
  options: {
    readonly mode?: 'open' | 'jwt';
    readonly limits?: Partial<HttpLimits>;
    readonly deps?: Partial<HttpDeps>;
  } = {},
) {
  const { script, directory } = scriptedDirectory();
  const clock = { now: () => NOW_MS };
  const mode = options.mode ?? 'open';
  let ids = 0;
  const log = collectingLog();
  const deps: HttpDeps = {
    directory,
    observer: createTurnObserver({ directory: options.deps?.directory ?? directory, clock, log }),
    access: accessIn(mode, clock),
    proxied: createProxyCheck({ mode, allowInsecure: false }),
    refusals: untraced,
    guardProbes: mode === 'jwt',
    allowedOrigins: [],
    log,
    clock,
    newTaskId: () => taskIdSchema.parse(`task-${++ids}`),
    newSessionId: () => sessionIdSchema.parse(`session-${++ids}`),
    nodeId: 'node-1',
    version: '1.2.3',
    draining: () => false,
    checks: {},
    metricsText: async () => ({ contentType: 'text/plain; version=0.0.4; charset=utf-8', body: 'up 1\n' }),
    overview: () => ({ turns: 7 }),
    socketStats: () => ({ sockets: 3 }),
    deltaWindowMs: 0,
    ...options.deps,
  };
  const server = openServer();
  const mount = mountHttp(server.app, createHttpApp(deps).fetch, { ...HTTP_LIMITS, ...options.limits });
  const port = await server.listen('127.0.0.1', 0);
  const url = `http://127.0.0.1:${port}`;
  const close = (): void => {
    server.close();
    assert.equal(mount.pending(), 0, 'a request was left open');
  };
  test?.after(close);
  return {
    port,
    url,
    script,
    lines: log.lines,
    mount,
    close,
    /** A request with a JSON body where one is given; in open mode of the tenant `acme`, unless said otherwise. */
    ask(path: string, init: AskInit = {}) {
      const { tenant = mode === 'open' ? 'acme' : undefined } = init;
      const body = init.body === undefined ? {} : { body: JSON.stringify(init.body) };
      const json = init.body === undefined ? {} : { 'content-type': 'application/json' };
      return fetch(url + path, {
        method: init.method ?? (init.body === undefined ? 'GET' : 'POST'),
        headers: { ...(tenant === undefined ? {} : { 'x-tenant-id': tenant }), ...json, ...init.headers },
        ...body,
      });
    },
    /** Resolves at the script's next event of that name. */
    next: async (name: string): Promise<unknown> => (await once(script.events, name))[0],
  };
}

/** A turn of the tenant `acme` that was answered. */
export const answeredTurn = (
  taskId: string,
  more: Partial<TurnRecord> = {},
  tenant = 'acme',
): TurnRecord => ({
  tenantId: tenantIdSchema.parse(tenant),
  taskId: taskIdSchema.parse(taskId),
  sessionId: sessionIdSchema.parse('s1'),
  agentId: DEFAULT_AGENT_ID,
  status: 'completed',
  createdAtMs: NOW_MS,
  finishedAtMs: NOW_MS + 40,
  content: 'hello',
  info: {
    execution_time_ms: 40,
    time_to_first_token_ms: 5,
    iterations: 1,
    tools_used: [],
    tokens_used: 12,
    model: 'offline-echo',
  },
  ...more,
});
