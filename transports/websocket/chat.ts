/** The chat WebSocket: lets a client in, hands its frames to the session's directory, and closes it with a reason. */
import type { HttpRequest, HttpResponse, TemplatedApp, us_socket_context_t, WebSocket } from 'uWebSockets.js';
import { CLOSE, type Close, type ErrorData, RefusalError, refusal } from '../../src/domain/errors.ts';
import { type ClientFrame, MAX_FRAME_BYTES } from '../../src/domain/frames.ts';
import type { TaskId } from '../../src/domain/ids.ts';
import type { Caller } from '../../src/domain/turn.ts';
import { requestOf } from '../../src/domain/turn-schemas.ts';
import type { SocketSlots } from '../../src/ports/limits.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import type { Clock, Log, Metrics, Refusals } from '../../src/ports/telemetry.ts';
import type { Settings } from '../../src/settings.ts';
import type { Access, ProxyCheck } from '../wire/access.ts';
import { decodeClientFrame, type Format, wrongKindOfFrame } from '../wire/codec.ts';
import { createLargeBodies, type LargeBodies, SMALL_BYTES } from '../wire/large-bodies.ts';
import { createUnsentBytes } from '../wire/unsent-bytes.ts';
import { createSocketClients, errorFrame, type SocketClient } from './connection.ts';
import { createKeepAlive, type MonitoredSocket, uwsIdleSeconds } from './keep-alive.ts';
import { createSocketCounts } from './socket-counts.ts';
import {
  createUpgradeCheck,
  readHandshake,
  refuseHandshake,
  type SessionPath,
  type Upgrade,
  type UpgradeDecision,
} from './upgrade.ts';

/** Unread bytes at which uWS itself cuts a socket off: a backstop far above what connection.ts allows. */
const MAX_BACKPRESSURE_BYTES = 16 * 1024 * 1024;

interface ChatDeps {
  readonly directory: Directory;
  readonly access: Access;
  readonly settings: ChatSettings;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Whether the process has too few descriptors left to hold one more socket; absent: it has enough. */
  readonly short?: () => boolean;
  readonly proxied: ProxyCheck;
  readonly refusals: Refusals;
  readonly clock: Clock;
  readonly draining: () => boolean;
  readonly newTaskId: () => TaskId;
  /** Whose sockets the tenants' are counted with; absent: this node alone has them. */
  readonly slots?: SocketSlots | undefined;
}

/** The part of the settings that concerns sockets. */
export type ChatSettings = Pick<Settings, 'sockets' | 'tiers' | 'defaultTier'> & {
  readonly access: Pick<Settings['access'], 'allowedOrigins'>;
};

interface ChatStats {
  readonly sockets: number;
  readonly tenants: number;
  readonly opened: number;
  /** Turned away, before or after the upgrade. */
  readonly refused: number;
  readonly frames_in: number;
  readonly bad_frames: number;
  readonly too_slow: number;
  /** Written, and not taken by their clients yet. */
  readonly unsent_bytes: number;
}

export interface Chat {
  stats(): ChatStats;
  /** Open sockets. */
  count(): number;
  /** Sends what was gathered, then closes every socket. New ones are still let in: `draining` keeps them out. */
  closeAll(close: Close): void;
}

/** One socket, from its handshake to its end. */
interface ConnectionState {
  readonly format: Format;
  readonly upgrade: Upgrade;
  /** Undefined until the socket is open. */
  monitored: MonitoredSocket | undefined;
  /** Tells the directory, once: when the socket goes, or before that when its client is given up. */
  detach: () => void;
  /** Takes the socket out of its tenant's count. */
  release: () => void;
  /** Reads the large frame that waits for its turn now; a socket has one at most. */
  readWaiting: () => void;
}

type Socket = WebSocket<{ connection: ConnectionState }>;

/** What the handlers of one mounted chat share. */
interface ChatContext extends ChatDeps {
  readonly keepAlive: ReturnType<typeof createKeepAlive>;
  readonly newClient: ReturnType<typeof createSocketClients>;
  readonly slots: SocketSlots;
  readonly bodies: LargeBodies;
  readonly totals: Record<'opened' | 'refused' | 'frames_in' | 'bad_frames' | 'too_slow', number>;
}

/**
 * Mounts `/ws/{tenant_id}/{session_id}` on the app, and what is near it: whoever connects there is told what is wrong. Its
 * only timer runs while there are sockets.
 */
export function mountChat(app: TemplatedApp, deps: ChatDeps): Chat {
  const { sockets } = deps.settings;
  const unsent = createUnsentBytes();
  const chat: ChatContext = {
    ...deps,
    keepAlive: createKeepAlive(sockets, deps.clock),
    newClient: createSocketClients(unsent),
    slots: deps.slots ?? createSocketCounts(),
    bodies: createLargeBodies(MAX_FRAME_BYTES),
    totals: { opened: 0, refused: 0, frames_in: 0, bad_frames: 0, too_slow: 0 },
  };
  const { keepAlive, slots, totals } = chat;
  app.ws<{ connection: ConnectionState }>('/ws/*', {
    maxPayloadLength: MAX_FRAME_BYTES,
    maxBackpressure: MAX_BACKPRESSURE_BYTES,
    // By default uWS silently skips what a slow socket can not take: a hole in the stream that nobody hears of.
    closeOnBackpressureLimit: true,
    idleTimeout: uwsIdleSeconds(sockets),
    sendPingsAutomatically: false,
    upgrade: upgradeHandler(chat),
    open: (ws) => openSocket(chat, ws),
    message: (ws, bytes, isBinary) => takeMessage(chat, ws, bytes, isBinary),
    ping: takeSignOfLife,
    pong: takeSignOfLife,
    drain: (ws) => ws.getUserData().connection.monitored?.client.drained(),
    close: (ws, code) => closeSocket(chat, ws, code),
  });
  return {
    stats: () => ({
      sockets: keepAlive.size(),
      tenants: slots.tenants(),
      unsent_bytes: unsent.bytes(),
      ...totals,
    }),
    count: () => keepAlive.size(),
    closeAll(reason) {
      for (const client of keepAlive.clients()) client.close(reason);
    },
  };
}

// --- 1. The handshake: refused over HTTP, or upgraded ----------------------------------------------------------

function upgradeHandler({ settings, keepAlive, totals, refusals, slots, ...deps }: ChatContext) {
  const check = createUpgradeCheck({
    access: deps.access,
    proxied: deps.proxied,
    allowedOrigins: settings.access.allowedOrigins,
    draining: deps.draining,
    full: () => keepAlive.size() >= settings.sockets.max || deps.short?.() === true,
  });

  return (res: HttpResponse, req: HttpRequest, context: us_socket_context_t): void => {
    const handshake = readHandshake(req);
    const path = req.getUrl();
    const { echo, format } = handshake.subprotocol;
    const key = req.getHeader('sec-websocket-key');
    const extensions = req.getHeader('sec-websocket-extensions');

    const perform = (decision: UpgradeDecision, release = nothing): void => {
      if (decision.type === 'refuse') {
        totals.refused += 1;
        refusals.refused('websocket', decision.error, { path });
        refuseHandshake(res, decision.error, handshake.requestId);
        return;
      }
      const connection: ConnectionState = {
        format,
        upgrade: decision,
        monitored: undefined,
        detach: nothing,
        release,
        readWaiting: nothing,
      };
      // Never inside `cork`: after an await this uWS build then sometimes closes the socket at once.
      res.upgrade({ connection }, key, echo, extensions, context);
    };

    let aborted = false;
    const decide = (decision: UpgradeDecision): void | Promise<void> => {
      if (decision.type !== 'accept') return perform(decision);
      const { tenantId, tier } = decision.admitted.caller;
      const most = settings.tiers[tier ?? settings.defaultTier].sockets;
      const taken = slots.take(tenantId, most);
      const counted = (release: (() => void) | undefined): void => {
        if (aborted) release?.();
        else perform(release ? decision : tooMany(most), release);
      };
      if (!(taken instanceof Promise)) return counted(taken);
      return taken.then(counted, (error: unknown) => {
        if (!aborted) perform({ type: 'refuse', error: refusalOf(error) });
      });
    };
    const decision = check(handshake);
    const isLater =
      decision instanceof Promise
        ? decision.then((late) => (aborted ? undefined : decide(late)))
        : decide(decision);
    if (!isLater) return;
    res.onAborted(() => {
      aborted = true;
    });
  };
}

const tooMany = (most: number): UpgradeDecision => {
  const message = `The tenant has its ${most} sockets open already; close some.`;
  return { type: 'reject', error: refusal('TIER_LIMIT', { message }), close: CLOSE.tooMany };
};

const refusalOf = (error: unknown): ErrorData =>
  error instanceof RefusalError ? error.data : refusal('INTERNAL');

const nothing = (): void => {};

// --- 2. The open socket becomes a client of its session --------------------------------------------------------

function openSocket(chat: ChatContext, ws: Socket): void {
  const { totals } = chat;
  const { connection } = ws.getUserData();
  const { upgrade } = connection;
  totals.opened += 1;
  chat.metrics.socketOpened();
  const client = clientOf(chat, ws, connection);
  connection.monitored = chat.keepAlive.add(
    client,
    upgrade.type === 'accept' ? upgrade.admitted.expiresAtMs : undefined,
  );
  if (upgrade.type === 'reject') {
    reject(chat, client, upgrade.error, upgrade.close);
    return;
  }
  const { caller } = upgrade.admitted;
  join(chat, connection, client, caller, upgrade.path);
}

function clientOf(chat: ChatContext, ws: Socket, connection: ConnectionState): SocketClient {
  const { totals, settings, log } = chat;
  const { upgrade, format } = connection;
  const wanted = upgrade.type === 'accept' ? upgrade.path : undefined;
  const id = `ws-${totals.opened}`;
  return chat.newClient(ws, {
    id,
    tenantId: upgrade.type === 'accept' ? upgrade.admitted.caller.tenantId : undefined,
    format,
    reasoning: wanted?.reasoning ?? false,
    deltaWindowMs: wanted?.deltaWindowMs ?? settings.sockets.deltaWindowMs,
    onStalled: () => {
      totals.too_slow += 1;
      log.info({ client: id }, 'client too slow');
      connection.detach();
    },
  });
}

/** Attaches a client. What undoes it stands ready first: the directory may close the client at once. */
function join(
  { directory }: ChatContext,
  connection: ConnectionState,
  client: SocketClient,
  caller: Caller,
  { sessionId, resume }: SessionPath,
): void {
  connection.detach = () => {
    connection.detach = nothing;
    directory.detach(caller.tenantId, sessionId, client.id);
  };
  directory.attach(caller, sessionId, client, resume);
}

function reject(chat: ChatContext, client: SocketClient, error: ErrorData, close: Close): void {
  chat.totals.refused += 1;
  client.send(errorFrame(error, undefined, chat.clock.now()));
  client.close(close);
}

// --- 3. A frame: decoded, then on to the directory -------------------------------------------------------------

function takeMessage(chat: ChatContext, ws: Socket, bytes: ArrayBuffer, isBinary: boolean): void {
  const { connection } = ws.getUserData();
  const { upgrade, monitored } = connection;
  if (!monitored || upgrade.type === 'reject') return;
  const admitted = { client: monitored.client, format: connection.format, ...upgrade };
  monitored.heardAtMs = performance.now();
  chat.totals.frames_in += 1;
  connection.readWaiting();
  const lent = new Uint8Array(bytes);
  if (lent.length <= SMALL_BYTES) return readFrame(chat, admitted, lent, isBinary);
  const copy = chat.bodies.joined([lent], lent.length);
  const read = (): void => {
    if (connection.readWaiting !== read) return;
    connection.readWaiting = nothing;
    try {
      readFrame(chat, admitted, copy, isBinary);
    } finally {
      chat.bodies.release(copy);
    }
  };
  connection.readWaiting = read;
  chat.bodies.soon(upgrade.admitted.caller.tenantId, read);
}

type Admitted = Extract<Upgrade, { readonly type: 'accept' }> & {
  readonly client: SocketClient;
  readonly format: Format;
};

function readFrame(chat: ChatContext, from: Admitted, bytes: Uint8Array, isBinary: boolean): void {
  const { client, format, admitted, path } = from;
  const decoded =
    isBinary === (format === 'msgpack') ? decodeClientFrame(bytes, format) : wrongKindOfFrame(format);
  if (decoded.ok) {
    takeFrame(chat, client, admitted.caller, path, decoded.frame);
    return;
  }
  chat.totals.bad_frames += 1;
  client.send(errorFrame(decoded.error, decoded.taskId, chat.clock.now()));
}

function takeSignOfLife(ws: Socket): void {
  const { monitored } = ws.getUserData().connection;
  if (!monitored) return;
  monitored.heardAtMs = performance.now();
  monitored.client.checkPressure();
}

/** What each frame of a client makes the directory do. Refusals come back to that client alone. */
function takeFrame(
  chat: ChatContext,
  client: SocketClient,
  caller: Caller,
  path: SessionPath,
  frame: ClientFrame,
): void {
  const { directory, clock, log } = chat;
  const refuse = (error: ErrorData, taskId: TaskId): void => {
    chat.refusals.refused('websocket', error, { tenant_id: caller.tenantId });
    client.send(errorFrame(error, taskId, clock.now()));
  };
  const broken = (taskId: TaskId) => (error: unknown) => {
    log.error({ client: client.id, task_id: taskId, err: error }, 'the directory failed');
    refuse(refusal('INTERNAL'), taskId);
  };
  switch (frame.type) {
    case 'ping':
      return client.send({ type: 'pong', seq: undefined, atMs: clock.now(), taskId: undefined, data: {} });
    case 'chat.send': {
      const { sessionId, agentId } = path;
      const request = requestOf(frame, { caller, sessionId, agentId, requestId: undefined }, chat.newTaskId);
      // Once it is accepted, the session itself tells all its clients.
      directory.say(request).then((reply) => {
        if (!reply.ok) refuse(reply.error, reply.taskId);
      }, broken(request.taskId));
      return;
    }
    case 'chat.cancel':
      directory.cancel(caller.tenantId, frame.task_id).then((reply) => {
        if (!reply.ok) refuse(reply.error, reply.taskId);
        else if (reply.status !== 'cancelled') refuse(alreadyOver(reply.status), reply.taskId);
      }, broken(frame.task_id));
  }
}

const alreadyOver = (status: string): ErrorData =>
  refusal('CONFLICT', { message: `The task is already ${status}.`, details: { status } });

// --- 4. The end ------------------------------------------------------------------------------------------------

function closeSocket(chat: ChatContext, ws: Socket, code: number): void {
  const { connection } = ws.getUserData();
  connection.readWaiting();
  connection.detach();
  connection.release();
  const { monitored } = connection;
  if (!monitored) return;
  const { client } = monitored;
  client.gone();
  chat.keepAlive.remove(monitored);
  chat.metrics.socketClosed(client.stalledAtMs === undefined ? code : CLOSE.tooSlow.code);
}
