/** Checks the open sockets: pings them, and closes those that are silent, too slow, or whose token has expired. */
import { CLOSE } from '../../src/domain/errors.ts';
import type { Clock } from '../../src/ports/telemetry.ts';
import { SLOW_GRACE_MS, type SocketClient } from './connection.ts';

/** Sockets are checked this often, and at least four times per ping setting. */
const MAX_SWEEP_MS = 1_000;
const MIN_SWEEP_MS = 5;
/** The longest idle timeout that uWS takes, in seconds. */
const MAX_UWS_IDLE_S = 960;

interface PingSettings {
  readonly pingIntervalMs: number;
  readonly pingTimeoutMs: number;
}

/** One monitored socket. Times are of performance.now(), which no change of the clock moves. */
export interface MonitoredSocket {
  readonly client: SocketClient;
  /** When its token expires, ms since the epoch. */
  readonly expiresAtMs: number | undefined;
  heardAtMs: number;
  pingAtMs: number;
}

interface KeepAlive {
  add(client: SocketClient, expiresAtMs: number | undefined): MonitoredSocket;
  remove(socket: MonitoredSocket): void;
  clients(): Iterable<SocketClient>;
  size(): number;
}

/**
 * Keeps one port's sockets alive: a ping every `pingIntervalMs`, the end after `pingTimeoutMs` more without any sign of
 * life. One timer for all, which runs only while there are sockets. (uWS's own timeout counts in steps of seconds, from
 * 8.)
 */
export function createKeepAlive(settings: PingSettings, clock: Clock): KeepAlive {
  const { pingIntervalMs, pingTimeoutMs } = settings;
  const sweepMs = Math.max(MIN_SWEEP_MS, Math.min(MAX_SWEEP_MS, pingIntervalMs / 4, pingTimeoutMs / 4));
  const all = new Set<MonitoredSocket>();
  let timer: NodeJS.Timeout | undefined;

  const sweep = (): void => {
    const nowMs = performance.now();
    const wallMs = clock.now();
    for (const socket of all) check(socket, nowMs, wallMs);
  };

  const check = (socket: MonitoredSocket, nowMs: number, wallMs: number): void => {
    const { client, expiresAtMs, heardAtMs, pingAtMs } = socket;
    if (expiresAtMs !== undefined && wallMs >= expiresAtMs) client.close(CLOSE.unauthenticated);
    else if (nowMs - heardAtMs > pingIntervalMs + pingTimeoutMs) client.close(CLOSE.goingAway);
    else if (client.stalledAtMs !== undefined) {
      if (nowMs - client.stalledAtMs > SLOW_GRACE_MS) client.close(CLOSE.tooSlow);
    } else if (nowMs >= pingAtMs) {
      socket.pingAtMs = nowMs + pingIntervalMs;
      client.ping();
    }
  };

  return {
    add(client, expiresAtMs) {
      const nowMs = performance.now();
      const socket = { client, expiresAtMs, heardAtMs: nowMs, pingAtMs: nowMs + pingIntervalMs };
      all.add(socket);
      timer ??= setInterval(sweep, sweepMs).unref();
      return socket;
    },
    remove(socket) {
      all.delete(socket);
      if (all.size > 0) return;
      clearInterval(timer);
      timer = undefined;
    },
    *clients() {
      for (const { client } of all) yield client;
    },
    size: () => all.size,
  };
}

/**
 * The idle timeout to give uWS itself. It ends only sockets whose close frame nobody takes, so it is twice as long as
 * the one above. uWS counts in seconds from 8 to 960; what is longer switches it off.
 */
export function uwsIdleSeconds({ pingIntervalMs, pingTimeoutMs }: PingSettings): number {
  const seconds = Math.max(8, Math.ceil(((pingIntervalMs + pingTimeoutMs) * 2) / 1000));
  return seconds > MAX_UWS_IDLE_S ? 0 : seconds;
}
