/** The chat WebSocket: lets a client in, hands its frames to the session's directory, and closes it with a reason. */

import type { HttpRequest, HttpResponse, TemplatedApp, us_socket_context_t, WebSocket } from 'uWebSockets.js';
import { CLOSE, type Close, type ErrorData, refusal } from '../../src/domain/errors.ts';
import { type ClientFrame, MAX_FRAME_BYTES } from '../../src/domain/frames.ts';
import type { TaskId, TenantId } from '../../src/domain/ids.ts';
import type { Caller } from '../../src/domain/turn.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import type { Clock, Log, Metrics } from '../../src/ports/telemetry.ts';
import type { Settings } from '../../src/settings.ts';
import type { Access } from '../wire/access.ts';
import { decodeClientFrame, type Format, wrongKindOfFrame } from '../wire/codec.ts';
import { createClients, errorFrame, type SocketClient } from './connection.ts';
import { createKeepAlive, type MonitoredSocket, uwsIdleSeconds } from './keep-alive.ts';
import {
  createDoor,
  type RefusedHandshake,
  readHandshake,
  refusedHandshake,
  type SessionPath,
  type UpgradeRequest,
  type UpgradeVerdict,
} from './upgrade.ts';

/** Unread bytes at which uWS itself cuts a socket off: a backstop far above what websocket-client.ts allows. */
const MAX_BACKPRESSURE_BYTES = 16 * 1024 * 1024;

interface ChatDeps {
  readonly directory: Directory;
  readonly access: Access;
  readonly settings: ChatSettings;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly draining: () => boolean;
  readonly newTaskId: () => TaskId;
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
  readonly entry: UpgradeRequest;
  watched: MonitoredSocket | undefined;
  /** Tells the directory, once: when the socket goes, or before that when its client is given up. */
  detach: () => void;
  /** Gives the tenant's place back when the socket goes. */
  leave: () => void;
}

type Socket = WebSocket<{ seat: ConnectionState }>;

/** Mounts `/ws/{tenant_id}/{session_id}` on the app. Its only timer runs while there are sockets. */
export function mountChat(app: TemplatedApp, deps: ChatDeps): Chat {
  const { settings, log, metrics } = deps;
  const watch = createKeepAlive(settings.sockets, deps.clock);
  const newClient = createClients();
  const take = createFrameTaker(deps);
  const perTenant = new Map<TenantId, number>();
  const totals = { opened: 0, refused: 0, frames_in: 0, bad_frames: 0, too_slow: 0 };
  const check = createDoor({
    access: deps.access,
    allowedOrigins: settings.access.allowedOrigins,
    draining: deps.draining,
    full: () => watch.size() >= settings.sockets.max,
  });

  // 1. The handshake: refused over HTTP, or upgraded.
  function upgrade(res: HttpResponse, req: HttpRequest, context: us_socket_context_t): void {
    const handshake = readHandshake(req);
    const { echo, format } = handshake.subprotocol;
    const key = req.getHeader('sec-websocket-key');
    const extensions = req.getHeader('sec-websocket-extensions');

    const perform = (verdict: UpgradeVerdict): void => {
      if (verdict.type === 'refuse') {
        totals.refused += 1;
        log.debug({ code: verdict.error.code }, 'socket refused');
        answer(res, refusedHandshake(verdict.error, handshake.requestId));
        return;
      }
      const seat: ConnectionState = {
        format,
        entry: verdict.entry,
        watched: undefined,
        detach: nothing,
        leave: nothing,
      };
      // Never inside `cork`: after an await this uWS build then sometimes closes the socket at once.
      res.upgrade({ seat }, key, echo, extensions, context);
    };

    const verdict = check(handshake);
    if (!(verdict instanceof Promise)) {
      perform(verdict);
      return;
    }
    let aborted = false;
    res.onAborted(() => {
      aborted = true;
    });
    void verdict.then((late) => {
      if (!aborted) perform(late);
    });
  }

  // 2. The open socket becomes a client of its session.
  function open(ws: Socket): void {
    const { seat } = ws.getUserData();
    const { entry, format } = seat;
    totals.opened += 1;
    metrics.socketOpened();
    const client = newClient(ws, {
      id: `ws-${totals.opened}`,
      format,
      deltaWindowMs: (entry.ok ? entry.address.deltaWindowMs : undefined) ?? settings.sockets.deltaWindowMs,
      onStalled: () => {
        totals.too_slow += 1;
        log.info({ client: client.id }, 'client too slow');
        seat.detach();
      },
    });
    seat.watched = watch.add(client, entry.ok ? entry.admitted.expiresAtMs : undefined);
    if (!entry.ok) {
      reject(client, entry.error, entry.close);
      return;
    }
    const { caller } = entry.admitted;
    const cap = settings.tiers[caller.tier ?? settings.defaultTier].sockets;
    if ((perTenant.get(caller.tenantId) ?? 0) >= cap) {
      const message = `The tenant has its ${cap} sockets open already; close some.`;
      reject(client, refusal('TIER_LIMIT', { message }), CLOSE.tooMany);
      return;
    }
    join(seat, client, caller, entry.address);
  }

  /** Counts and attaches a client. What undoes it stands ready first: the directory may close the client at once. */
  function join(seat: ConnectionState, client: SocketClient, caller: Caller, address: SessionPath): void {
    const { tenantId } = caller;
    perTenant.set(tenantId, (perTenant.get(tenantId) ?? 0) + 1);
    seat.leave = () => {
      const rest = (perTenant.get(tenantId) ?? 1) - 1;
      if (rest > 0) perTenant.set(tenantId, rest);
      else perTenant.delete(tenantId);
    };
    seat.detach = () => {
      seat.detach = nothing;
      deps.directory.detach(tenantId, address.sessionId, client.id);
    };
    deps.directory.attach(caller, address.sessionId, client, address.resume);
  }

  function reject(client: SocketClient, error: ErrorData, close: Close): void {
    totals.refused += 1;
    client.send(errorFrame(error, undefined, deps.clock.now()));
    client.close(close);
  }

  // 3. A frame: decoded, then on to the directory.
  function message(ws: Socket, bytes: ArrayBuffer, isBinary: boolean): void {
    const { entry, watched, format } = ws.getUserData().seat;
    if (!watched || !entry.ok) return;
    const { client } = watched;
    watched.heardAtMs = performance.now();
    totals.frames_in += 1;
    const decoded =
      isBinary === (format === 'msgpack')
        ? decodeClientFrame(new Uint8Array(bytes), format)
        : wrongKindOfFrame(format);
    if (decoded.ok) {
      take(client, entry.admitted.caller, entry.address, decoded.frame);
      return;
    }
    totals.bad_frames += 1;
    client.send(errorFrame(decoded.error, decoded.taskId, deps.clock.now()));
  }

  function heard(ws: Socket): void {
    const { watched } = ws.getUserData().seat;
    if (!watched) return;
    watched.heardAtMs = performance.now();
    watched.client.checkPressure();
  }

  // 4. The end.
  function close(ws: Socket, code: number): void {
    const { seat } = ws.getUserData();
    seat.detach();
    seat.leave();
    const { watched } = seat;
    if (!watched) return;
    watched.client.gone();
    watch.remove(watched);
    metrics.socketClosed(watched.client.stalledAtMs === undefined ? code : CLOSE.tooSlow.code);
  }

  app.ws<{ seat: ConnectionState }>('/ws/:tenant/:session', {
    maxPayloadLength: MAX_FRAME_BYTES,
    maxBackpressure: MAX_BACKPRESSURE_BYTES,
    // By default uWS silently skips what a slow socket can not take: a hole in the stream that nobody hears of.
    closeOnBackpressureLimit: true,
    idleTimeout: uwsIdleSeconds(settings.sockets),
    sendPingsAutomatically: false,
    upgrade,
    open,
    message,
    ping: heard,
    pong: heard,
    drain: (ws) => ws.getUserData().seat.watched?.client.drained(),
    close,
  });

  return {
    stats: () => ({ sockets: watch.size(), tenants: perTenant.size, ...totals }),
    count: () => watch.size(),
    closeAll(reason) {
      for (const client of watch.clients()) client.close(reason);
    },
  };
}

const nothing = (): void => {};

const over = (status: string): ErrorData =>
  refusal('CONFLICT', { message: `The task is already ${status}.`, details: { status } });

/** What each frame of a client makes the directory do. Refusals come back to that client alone. */
function createFrameTaker(deps: ChatDeps) {
  const { directory, clock, log } = deps;

  return (client: SocketClient, caller: Caller, address: SessionPath, frame: ClientFrame): void => {
    const refuse = (error: ErrorData, taskId: TaskId): void =>
      client.send(errorFrame(error, taskId, clock.now()));
    const broken = (taskId: TaskId) => (error: unknown) => {
      log.error({ client: client.id, task_id: taskId, err: error }, 'the directory failed');
      refuse(refusal('INTERNAL'), taskId);
    };
    switch (frame.type) {
      case 'ping':
        return client.send({ type: 'pong', seq: undefined, atMs: clock.now(), taskId: undefined, data: {} });
      case 'chat.send': {
        const taskId = frame.task_id ?? deps.newTaskId();
        const request = {
          caller,
          sessionId: address.sessionId,
          taskId,
          taskIdGiven: frame.task_id !== undefined,
          agentId: frame.agent_id ?? address.agentId,
          ...(frame.agent_version === undefined ? {} : { agentVersion: frame.agent_version }),
          message: frame.message,
          context: frame.context,
          stream: frame.stream,
          onBusy: frame.on_busy,
          requestId: undefined,
        };
        // Once it is accepted, the session itself tells all its clients.
        directory.say(request).then((reply) => {
          if (!reply.ok) refuse(reply.error, reply.taskId);
        }, broken(taskId));
        return;
      }
      case 'chat.cancel':
        directory.cancel(caller.tenantId, frame.task_id).then((reply) => {
          if (!reply.ok) refuse(reply.error, reply.taskId);
          else if (reply.status !== 'cancelled') refuse(over(reply.status), reply.taskId);
        }, broken(frame.task_id));
    }
  };
}

/** Refuses a handshake as HTTP does everything else (PROTOCOL 3). */
function answer(res: HttpResponse, refused: RefusedHandshake): void {
  res.cork(() => {
    res.writeStatus(refused.status);
    for (const [name, value] of refused.headers) res.writeHeader(name, value);
    res.end(refused.body);
  });
}
