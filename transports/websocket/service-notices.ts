/** The WebSocket of services, `/ws/task_updates`: notices of all nodes go out to them, theirs come in for tenants' sockets. */
import type { HttpRequest, HttpResponse, TemplatedApp, us_socket_context_t, WebSocket } from 'uWebSockets.js';
import { z } from 'zod';
import {
  NOTICE_EVENTS,
  noticeEventSchema,
  type TenantNotice,
  tenantNoticeSchema,
} from '../../src/domain/agent-record.ts';
import { CLOSE, type Close, type ErrorData, type Reply, refusal } from '../../src/domain/errors.ts';
import { MAX_FRAME_BYTES } from '../../src/domain/frames.ts';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import { problemText } from '../../src/domain/problems.ts';
import type { Notices } from '../../src/ports/management.ts';
import type { Clock, Log, Metrics, Refusals } from '../../src/ports/telemetry.ts';
import {
  createServiceCheck,
  hasTokenInQuery,
  MISPLACED_TOKEN,
  NO_SERVICE_TOKEN,
  type ProxyCheck,
} from '../wire/access.ts';
import { decodeJson } from '../wire/codec.ts';
import { refuseHandshake } from './upgrade.ts';

/** How long a service may take to say who it is. */
const AUTH_TIMEOUT_MS = 5_000;
/** Sockets of services that have proved to be some. */
const MAX_SERVICES = 256;
/**
 * Sockets that have not yet said who they are: of all, and of one address. With one more the oldest goes. None is kept
 * out, since behind a proxy strangers and services have one address.
 */
const MAX_STRANGERS = 128;
const MAX_STRANGERS_AT = 16;
/** Bytes that a service has not taken yet; past this it is cut off and has to come back. */
const MAX_BUFFERED_BYTES = 1024 * 1024;
/** uWS pings by itself, shortly before a socket has been silent for this long. */
const IDLE_SECONDS = 60;

export interface TaskUpdatesDeps {
  /** Undefined: nobody is a service, and every handshake is refused with 403. */
  readonly serviceToken: string | undefined;
  readonly notices: Notices;
  /** Brings a service's notice to its tenant's sockets, on all nodes. */
  readonly deliver: (notice: TenantNotice) => void;
  readonly log: Log;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'socketOpened' | 'socketClosed'>;
  readonly draining: () => boolean;
  readonly proxied: ProxyCheck;
  readonly refusals: Refusals;
  /** Only tests change these. */
  readonly timing?: { readonly authTimeoutMs?: number; readonly idleSeconds?: number };
}

interface TaskUpdates {
  /** Open sockets, authenticated or not. */
  count(): number;
  /** Hears no more notices, and closes every socket. */
  close(reason: Close): void;
}

interface ServiceState {
  /** Its name; undefined until it is authenticated. */
  name: string | undefined;
  /** Ends a socket that is not authenticated in time. */
  timer: NodeJS.Timeout | undefined;
  readonly address: string;
}

type Socket = WebSocket<{ service: ServiceState }>;

/** What the handlers of the mounted route share. */
interface ServicesContext extends TaskUpdatesDeps {
  readonly isToken: ((given: string) => boolean) | undefined;
  /** Sockets, authenticated or not. */
  readonly open: Set<Socket>;
  readonly authenticated: Set<Socket>;
}

/** Mounts the route. Order: each service gets the notices of a node in the order in which they were published. */
export function mountTaskUpdates(app: TemplatedApp, deps: TaskUpdatesDeps): TaskUpdates {
  const isToken = deps.serviceToken === undefined ? undefined : createServiceCheck(deps.serviceToken);
  const context: ServicesContext = { ...deps, isToken, open: new Set(), authenticated: new Set() };
  const { open, authenticated } = context;
  const stopListening = deps.notices.listen('everywhere', (notice) => {
    if (authenticated.size === 0) return;
    const text = JSON.stringify(notice);
    for (const ws of [...authenticated]) write(context, ws, text);
  });
  app.ws<{ service: ServiceState }>('/ws/task_updates', {
    maxPayloadLength: MAX_FRAME_BYTES,
    maxBackpressure: MAX_BUFFERED_BYTES * 2,
    closeOnBackpressureLimit: true,
    idleTimeout: deps.timing?.idleSeconds ?? IDLE_SECONDS,
    sendPingsAutomatically: true,
    upgrade: (res, req, socketContext) => upgrade(context, res, req, socketContext),
    open: (ws) => openSocket(context, ws),
    message(ws, bytes, isBinary) {
      const { service } = ws.getUserData();
      const frame = isBinary ? NO_TEXT : bytes;
      if (service.name === undefined) authenticate(context, ws, service, frame);
      else takeNotice(context, ws, service.name, frame);
    },
    close: (ws, code) => closeSocket(context, ws, code),
  });
  return {
    count: () => open.size,
    close(reason) {
      stopListening();
      for (const ws of [...open]) ws.end(reason.code, reason.reason);
    },
  };
}

/** What a binary frame is read as: services send text. */
const NO_TEXT = new ArrayBuffer(0);

function upgrade(
  { isToken, draining, authenticated, proxied, refusals }: ServicesContext,
  res: HttpResponse,
  req: HttpRequest,
  context: us_socket_context_t,
): void {
  const refused = (): ErrorData | undefined => {
    if (hasTokenInQuery(new URLSearchParams(req.getQuery()))) return MISPLACED_TOKEN;
    if (!isToken) return NO_SERVICE_TOKEN;
    const names: string[] = [];
    req.forEach((name) => {
      names.push(name);
    });
    const cameByProxy = proxied(names);
    if (cameByProxy) return cameByProxy;
    if (draining()) return refusal('DRAINING');
    return authenticated.size >= MAX_SERVICES ? TOO_MANY : undefined;
  };
  const error = refused();
  if (error) {
    refusals.refused('service', error, { path: req.getUrl() });
    return refuseHandshake(res, error, req.getHeader('x-request-id'));
  }
  const header = (name: string): string => req.getHeader(`sec-websocket-${name}`);
  const address = Buffer.from(res.getRemoteAddress()).toString('hex');
  const service: ServiceState = { name: undefined, timer: undefined, address };
  res.upgrade({ service }, header('key'), '', header('extensions'), context);
}

const TOO_MANY = refusal('OVERLOADED', { message: 'Too many services are here.' });

function openSocket(context: ServicesContext, ws: Socket): void {
  const { open, metrics, timing } = context;
  open.add(ws);
  makeRoom(context, ws.getUserData().service.address);
  metrics.socketOpened();
  ws.getUserData().service.timer = setTimeout(
    () => ws.end(CLOSE.unauthenticated.code, 'no service_token in time'),
    timing?.authTimeoutMs ?? AUTH_TIMEOUT_MS,
  ).unref();
}

/** Lets the oldest strangers go where there are too many, a new one included. */
function makeRoom({ open, log }: ServicesContext, address: string): void {
  const strangers = [...open].filter((ws) => ws.getUserData().service.name === undefined);
  const near = strangers.filter((ws) => ws.getUserData().service.address === address);
  const surplus = near.length > MAX_STRANGERS_AT ? near[0] : strangers.length > MAX_STRANGERS && strangers[0];
  if (!surplus) return;
  log.debug({}, 'a socket that did not say who it is made room for another');
  surplus.end(CLOSE.tooMany.code, CLOSE.tooMany.reason);
}

function closeSocket({ open, authenticated, metrics }: ServicesContext, ws: Socket, code: number): void {
  clearTimeout(ws.getUserData().service.timer);
  open.delete(ws);
  authenticated.delete(ws);
  metrics.socketClosed(code);
}

const NOT_AUTHENTICATED = refusal('UNAUTHENTICATED', { message: 'A service gave no valid service_token.' });

/** Takes the first frame of a service, which says who it is. */
function authenticate(context: ServicesContext, ws: Socket, service: ServiceState, bytes: ArrayBuffer): void {
  const read = readJson(bytes);
  const parsed = introductionSchema.safeParse(read.ok ? read.value : undefined);
  if (!parsed.success || !context.isToken?.(parsed.data.service_token)) {
    context.refusals.refused('service', NOT_AUTHENTICATED, { path: '/ws/task_updates' });
    ws.end(CLOSE.unauthenticated.code, CLOSE.unauthenticated.reason);
    return;
  }
  clearTimeout(service.timer);
  if (context.authenticated.size >= MAX_SERVICES) {
    ws.end(CLOSE.overloaded.code, TOO_MANY.message);
    return;
  }
  service.name = parsed.data.service_name;
  context.authenticated.add(ws);
  context.log.info({ service: service.name }, 'a service is here');
  ws.send('{"status":"authenticated"}');
}

function takeNotice(context: ServicesContext, ws: Socket, service: string, bytes: ArrayBuffer): void {
  const read = readJson(bytes);
  const notice = read.ok ? readNotice(read.value, service, context.clock.now()) : read;
  if (notice.ok) {
    context.deliver(notice.value);
    return;
  }
  const { code, message } = notice.error;
  write(context, ws, JSON.stringify({ status: 'error', error: { code, message } }));
}

function write({ log }: ServicesContext, ws: Socket, text: string): void {
  ws.send(text);
  if (ws.getBufferedAmount() <= MAX_BUFFERED_BYTES) return;
  log.warn({}, 'a service was too slow');
  // A close frame would wait behind the frames that the service does not read.
  ws.close();
}

// --- What services say -----------------------------------------------------------------------------------------

const introductionSchema = z.object({
  service_token: z.string().max(512),
  service_name: z.string().min(1).max(128),
});

const refuse = (problem: string) => ({
  ok: false as const,
  error: refusal('INVALID_REQUEST', { message: `The frame is malformed: ${problem}.` }),
});

function readJson(bytes: ArrayBuffer): Reply<unknown> {
  const read = decodeJson(new Uint8Array(bytes));
  return read.ok ? read : refuse(read.problem);
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
function readNotice(raw: unknown, service: string, nowMs: number): Reply<TenantNotice> {
  const short = typeof raw === 'object' && raw !== null && 'channel' in raw && !('tenant_id' in raw);
  if (short) {
    const parsed = channelSchema.safeParse(raw);
    if (!parsed.success) return refuse(problemText(parsed.error, 'frame'));
    const { channel, event, data } = parsed.data;
    const task_id = typeof data.task_id === 'string' ? data.task_id : '';
    return whole({ event, service, task_id, tenant_id: channel, timestamp: isoTime(nowMs), data });
  }
  const parsed = noticeSchema.safeParse(raw);
  if (!parsed.success) return refuse(problemText(parsed.error, 'frame'));
  const { timestamp, ...rest } = parsed.data;
  return whole({
    ...rest,
    service: rest.service ?? service,
    task_id: rest.task_id ?? '',
    timestamp: isoTime(timestamp ?? nowMs),
  });
}

const isoTime = (atMs: number): string => new Date(atMs).toISOString();

function whole(notice: z.input<typeof tenantNoticeSchema>): Reply<TenantNotice> {
  const parsed = tenantNoticeSchema.safeParse(notice);
  return parsed.success ? { ok: true, value: parsed.data } : refuse(problemText(parsed.error, 'frame'));
}
