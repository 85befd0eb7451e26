/** The WebSocket of services, `/ws/task_updates`: notices of this node go out to them, theirs come in for tenants' sockets. */
import { z } from 'zod';
import {
  NOTICE_EVENTS,
  noticeEventSchema,
  type TenantNotice,
  tenantNoticeSchema,
} from '../../src/domain/agent-record.ts';
import { CLOSE, type Close, type ErrorData, refusal } from '../../src/domain/errors.ts';
import { MAX_DEPTH, MAX_FRAME_BYTES } from '../../src/domain/frames.ts';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import type { Notices } from '../../src/ports/management.ts';
import type { Clock, Log, Metrics } from '../../src/ports/telemetry.ts';
import type { Server } from '../http/adapter.ts';
import { createServiceCheck, hasTokenInQuery, MISPLACED_TOKEN, NO_SERVICE_TOKEN } from '../wire/access.ts';
import { jsonTooDeep } from '../wire/depth-limit.ts';
import { refusedHandshake } from './upgrade.ts';

/** How long a service may take to say who it is. */
const AUTH_TIMEOUT_MS = 5_000;
/** Sockets of services, those that have not yet said who they are included. */
const MAX_SERVICES = 256;
/** Bytes that a service has not taken yet; past this it is cut off and has to come back. */
const MAX_BUFFERED_BYTES = 1024 * 1024;
/** uWS pings by itself, shortly before a socket has been silent for this long. */
const IDLE_SECONDS = 60;

export interface TaskUpdatesDeps {
  /** Undefined: nobody is a service, and every handshake is refused with 403. */
  readonly serviceToken: string | undefined;
  readonly notices: Notices;
  /** Brings a service's notice to its tenant's sockets. */
  readonly deliver: (notice: TenantNotice) => void;
  readonly log: Log;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'socketOpened' | 'socketClosed'>;
  readonly draining: () => boolean;
  /** Only tests change these. */
  readonly timing?: { readonly authTimeoutMs?: number; readonly idleSeconds?: number };
}

interface TaskUpdates {
  /** Open sockets, authenticated or not. */
  count(): number;
  /** Hears no more notices, and closes every socket. */
  close(reason: Close): void;
}

/** What this file needs of a uWebSockets.js socket. */
interface Wire {
  send(text: string): number;
  getBufferedAmount(): number;
  end(code: number, reason: string): void;
  close(): void;
}

interface Seat {
  /** Undefined until it has said who it is. */
  service: string | undefined;
  patience: NodeJS.Timeout | undefined;
}

/** Mounts the route. Order: each service gets this node's notices in the order in which they were published. */
export function mountTaskUpdates(app: Server['app'], deps: TaskUpdatesDeps): TaskUpdates {
  const { log, clock, metrics } = deps;
  const authTimeoutMs = deps.timing?.authTimeoutMs ?? AUTH_TIMEOUT_MS;
  const isToken = deps.serviceToken === undefined ? undefined : createServiceCheck(deps.serviceToken);
  const open = new Set<Wire>();
  const services = new Set<Wire>();

  const shut = (): ErrorData | undefined => {
    if (!isToken) return NO_SERVICE_TOKEN;
    if (deps.draining()) return refusal('DRAINING');
    if (open.size >= MAX_SERVICES) return refusal('OVERLOADED', { message: 'Too many services are here.' });
    return undefined;
  };

  function authenticate(ws: Wire, seat: Seat, bytes: ArrayBuffer): void {
    const read = readJson(bytes);
    const parsed = introductionSchema.safeParse(read.ok ? read.value : undefined);
    if (!parsed.success || !isToken?.(parsed.data.service_token)) {
      log.info({ service: parsed.data?.service_name }, 'a service was not authenticated');
      ws.end(CLOSE.unauthenticated.code, CLOSE.unauthenticated.reason);
      return;
    }
    clearTimeout(seat.patience);
    seat.service = parsed.data.service_name;
    services.add(ws);
    log.info({ service: seat.service }, 'a service is here');
    ws.send('{"status":"authenticated"}');
  }

  function take(ws: Wire, service: string, bytes: ArrayBuffer): void {
    const read = readJson(bytes);
    const notice = read.ok ? readNotice(read.value, service, clock.now()) : read;
    if (notice.ok) {
      deps.deliver(notice.value);
      return;
    }
    const { code, message } = notice.error;
    write(ws, JSON.stringify({ status: 'error', error: { code, message } }));
  }

  function write(ws: Wire, text: string): void {
    ws.send(text);
    if (ws.getBufferedAmount() <= MAX_BUFFERED_BYTES) return;
    log.warn({}, 'a service was too slow');
    // A close frame would wait behind what it does not read.
    ws.close();
  }

  const stopListening = deps.notices.listen((notice) => {
    if (services.size === 0) return;
    const text = JSON.stringify(notice);
    for (const ws of [...services]) write(ws, text);
  });

  app.ws<{ seat: Seat }>('/ws/task_updates', {
    maxPayloadLength: MAX_FRAME_BYTES,
    maxBackpressure: MAX_BUFFERED_BYTES * 2,
    closeOnBackpressureLimit: true,
    idleTimeout: deps.timing?.idleSeconds ?? IDLE_SECONDS,
    sendPingsAutomatically: true,
    upgrade(res, req, context) {
      const misplaced = hasTokenInQuery(new URLSearchParams(req.getQuery()));
      const closed = misplaced ? MISPLACED_TOKEN : shut();
      if (closed) {
        const refused = refusedHandshake(closed, req.getHeader('x-request-id'));
        res.cork(() => {
          res.writeStatus(refused.status);
          for (const [name, value] of refused.headers) res.writeHeader(name, value);
          res.end(refused.body);
        });
        return;
      }
      const seat: Seat = { service: undefined, patience: undefined };
      const header = (name: string): string => req.getHeader(`sec-websocket-${name}`);
      res.upgrade({ seat }, header('key'), '', header('extensions'), context);
    },
    open(ws) {
      open.add(ws);
      metrics.socketOpened();
      ws.getUserData().seat.patience = setTimeout(
        () => ws.end(CLOSE.unauthenticated.code, 'no service_token in time'),
        authTimeoutMs,
      ).unref();
    },
    message(ws, bytes, isBinary) {
      const { seat } = ws.getUserData();
      const frame = isBinary ? new ArrayBuffer(0) : bytes;
      if (seat.service === undefined) authenticate(ws, seat, frame);
      else take(ws, seat.service, frame);
    },
    close(ws, code) {
      clearTimeout(ws.getUserData().seat.patience);
      open.delete(ws);
      services.delete(ws);
      metrics.socketClosed(code);
    },
  });

  return {
    count: () => open.size,
    close(reason) {
      stopListening();
      for (const ws of [...open]) ws.end(reason.code, reason.reason);
    },
  };
}

// --- What services say -----------------------------------------------------------------------------------------

type Read<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: ErrorData };

const introductionSchema = z.object({
  service_token: z.string().max(512),
  service_name: z.string().min(1).max(128),
});

const refuse = (problem: string): { ok: false; error: ErrorData } => ({
  ok: false,
  error: refusal('INVALID_REQUEST', { message: `The frame is malformed: ${problem}.` }),
});

function readJson(bytes: ArrayBuffer): Read<unknown> {
  if (jsonTooDeep(new Uint8Array(bytes), MAX_DEPTH)) return refuse(`nested deeper than ${MAX_DEPTH}`);
  try {
    return { ok: true, value: JSON.parse(Buffer.from(bytes).toString()) };
  } catch {
    return refuse('not JSON text');
  }
}

/** Senders write times without a zone and with microseconds: read as UTC. */
const timeSchema = z
  .string()
  .regex(/^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?$/, 'must be an ISO 8601 time')
  .transform((text) => Date.parse(/(Z|[+-]\d\d:\d\d)$/.test(text) ? text : `${text}Z`))
  .pipe(z.number('must be an ISO 8601 time'));

const event = noticeEventSchema.or(
  z.string().transform((_, context) => {
    context.addIssue(`must be one of ${NOTICE_EVENTS.join(', ')}`);
    return z.NEVER;
  }),
);

const dataSchema = z
  .record(z.string(), z.unknown())
  .nullish()
  .transform((data) => data ?? {});

/** The whole notice; what senders leave out is filled in. */
const noticeSchema = z.object({
  event,
  service: z.string().max(128).nullish(),
  task_id: z.string().max(128).nullish(),
  global_task_id: z.string().max(128).nullish(),
  tenant_id: tenantIdSchema,
  timestamp: timeSchema.nullish(),
  data: dataSchema,
});

/** The short form, for a tenant's screens. */
const channelSchema = z.object({
  channel: z
    .string()
    .regex(/^tenant:/, 'must be tenant:{tenant_id}')
    .transform((channel) => channel.slice('tenant:'.length))
    .pipe(tenantIdSchema),
  event,
  data: dataSchema,
});

/** Reads either form. `service` and `nowMs` stand in for what the sender left out. */
function readNotice(raw: unknown, service: string, nowMs: number): Read<TenantNotice> {
  const short = typeof raw === 'object' && raw !== null && 'channel' in raw && !('tenant_id' in raw);
  if (short) {
    const parsed = channelSchema.safeParse(raw);
    if (!parsed.success) return refuse(problemsOf(parsed.error));
    const { channel, event, data } = parsed.data;
    const task_id = typeof data.task_id === 'string' ? data.task_id : '';
    return whole({ event, service, task_id, tenant_id: channel, timestamp: isoTime(nowMs), data });
  }
  const parsed = noticeSchema.safeParse(raw);
  if (!parsed.success) return refuse(problemsOf(parsed.error));
  const { timestamp, ...rest } = parsed.data;
  return whole({
    ...rest,
    service: rest.service ?? service,
    task_id: rest.task_id ?? '',
    timestamp: isoTime(timestamp ?? nowMs),
  });
}

const isoTime = (atMs: number): string => new Date(atMs).toISOString();

function whole(notice: z.input<typeof tenantNoticeSchema>): Read<TenantNotice> {
  const parsed = tenantNoticeSchema.safeParse(notice);
  return parsed.success ? { ok: true, value: parsed.data } : refuse(problemsOf(parsed.error));
}

const problemsOf = (error: z.ZodError): string =>
  error.issues
    .slice(0, 5)
    .map((issue) => `${issue.path.join('.') || 'frame'}: ${issue.message}`)
    .join('; ');
