/** A receiver of webhooks on loopback, http or https, and a dispatcher whose clock the test turns. */
import { EventEmitter, once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { TestContext } from 'node:test';
import {
  type NoticeEvent,
  type TenantNotice,
  tenantNoticeSchema,
  type Webhook,
  type WebhookDelivery,
} from '../../../src/domain/agent-record.ts';
import { type TenantId, tenantIdSchema } from '../../../src/domain/ids.ts';
import { createNotices } from '../../../src/management/notices.ts';
import type { WebhookStore } from '../../../src/ports/management.ts';
import type { Timers } from '../../../src/ports/telemetry.ts';
import { createWebhooks, type WebhookDeps } from '../../../transports/webhooks/webhooks.ts';
import { leakFree } from '../../support/leaks.ts';
import { listen } from '../../support/processes.ts';
import { logTo, uncounted } from '../../support/quiet.ts';
import { memoryStores } from '../../support/stores.ts';
import { loopTurns } from '../../support/until.ts';

/** What a receiver was sent. */
export interface Request {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly body: string;
}

export interface Receiver {
  readonly port: number;
  readonly requests: readonly Request[];
  /** Resolves once that many requests have come in all. */
  got(count: number): Promise<void>;
}

/** Opens a receiver; `answer` is told the request's number, from 1. It answers 204 where there is none. */
export async function openReceiver(
  t: TestContext,
  answer: (response: ServerResponse, count: number) => void = (response) => response.writeHead(204).end(),
  tls = false,
): Promise<Receiver> {
  const requests: Request[] = [];
  const events = new EventEmitter();
  const listener: RequestListener = async (request, response) => {
    const body = await textOf(request);
    const headers = Object.fromEntries(
      Object.entries(request.headers).map(([name, value]) => [name, String(value)]),
    );
    requests.push({ method: request.method ?? '', url: request.url ?? '', headers, body });
    answer(response, requests.length);
    events.emit('request');
  };
  const server = tls ? createTlsServer({ key: TEST_KEY, cert: TEST_CERT }, listener) : createServer(listener);
  const port = await listen(server);
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    port,
    requests,
    async got(count) {
      while (requests.length < count) await once(events, 'request');
    },
  };
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of request) chunks.push(Buffer.from(chunk));
  } catch {
    // The sender broke off.
  }
  return Buffer.concat(chunks).toString();
}

/** A clock and timers that move when told. Starts at the real time: signatures are checked against it. */
export function createTestTime() {
  let nowMs = Date.now();
  const timers = new Set<{ readonly atMs: number; readonly run: () => void }>();
  const testTimers: Timers = {
    after(ms, run) {
      const timer = { atMs: nowMs + ms, run };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
  };
  return {
    clock: { now: () => nowMs },
    timers: testTimers,
    /** Runs what falls due, in order, each with all that comes of it in memory, as if the time had passed. */
    async advance(ms: number): Promise<void> {
      const endMs = nowMs + ms;
      for (;;) {
        const [next] = [...timers].filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs);
        if (!next) break;
        timers.delete(next);
        nowMs = Math.max(nowMs, next.atMs);
        next.run();
        await loopTurns();
      }
      nowMs = endMs;
    },
  };
}

/** A store that tells what is kept, and fails as often as the test says. */
export function watchedStore(store: WebhookStore = memoryStores().webhooks) {
  const events = new EventEmitter();
  events.setMaxListeners(0);
  const kept: WebhookDelivery[] = [];
  const script = { failures: 0 };
  const fail = (): void => {
    if (script.failures === 0) return;
    script.failures -= 1;
    throw new Error('the store broke');
  };
  const keep = (delivery: WebhookDelivery): void => {
    kept.push(delivery);
    // After the dispatcher has heard that it was kept.
    setImmediate(() => events.emit('kept'));
  };
  const until = async (fits: () => WebhookDelivery | undefined): Promise<WebhookDelivery> => {
    for (let found = fits(); ; found = fits()) {
      if (found) return found;
      await once(events, 'kept');
    }
  };
  return {
    ...store,
    script,
    kept,
    async saveDelivery(delivery: WebhookDelivery, claimedUntilMs?: number) {
      fail();
      await store.saveDelivery(delivery, claimedUntilMs);
      keep(delivery);
    },
    async saveClaimed(delivery: WebhookDelivery, claimedUntilMs: number) {
      fail();
      const done = await store.saveClaimed(delivery, claimedUntilMs);
      if (done) keep(delivery);
      return done;
    },
    /** Resolves to the first delivery kept, past or future, that fits. */
    until: (fits: (delivery: WebhookDelivery) => boolean) => until(() => kept.find(fits)),
    /** What the only delivery was after that attempt: it is kept when new, then before and after each. */
    outcome: (attempt: number) => until(() => kept[2 * attempt]),
  };
}

export const tenant = (name: string): TenantId => tenantIdSchema.parse(name);

export const notice = (event: NoticeEvent = 'agent_updated', to = 'acme', data = {}): TenantNotice =>
  tenantNoticeSchema.parse({
    event,
    service: 'agent-management',
    task_id: 't1',
    global_task_id: null,
    tenant_id: to,
    timestamp: '2026-01-02T03:04:05.006Z',
    data: { agent_id: 'a1', ...data },
  });

/** A started dispatcher over a store in memory, with jitter at its upper bound; private addresses are allowed. */
export function openWebhooks(
  t: TestContext,
  more: Partial<WebhookDeps> & { store?: ReturnType<typeof watchedStore> } = {},
) {
  leakFree(t);
  const time = createTestTime();
  const lines: string[] = [];
  const plain = (_: string, value: unknown) => (value instanceof Error ? value.message : value);
  const log = logTo(({ fields, text }) => lines.push(`${text} ${JSON.stringify(fields, plain)}`));
  const notices = createNotices(log);
  const store = more.store ?? watchedStore();
  const webhooks = createWebhooks({
    notices,
    clock: time.clock,
    timers: time.timers,
    log,
    meter: uncounted,
    allowInsecure: true,
    blockPrivate: false,
    random: () => 1,
    ...more,
    store,
  });
  t.after(() => webhooks.close());
  webhooks.start();
  return {
    ...time,
    webhooks,
    notices,
    store,
    lines,
    /** Makes a webhook without the checks of `create`: what an older version may have stored. */
    async hook(url: string, fields: Partial<Webhook> = {}): Promise<Webhook> {
      const webhook: Webhook = {
        id: `wh_${url.length}_${Math.random()}`,
        tenant_id: tenant('acme'),
        url,
        events: null,
        secret: SECRET,
        created_at: new Date().toISOString(),
        ...fields,
      };
      await store.save(webhook.tenant_id, webhook);
      return webhook;
    },
  };
}

export const SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;

/** For the name hooks.test, and for nothing but tests. */
export const TEST_CERT = `-----BEGIN CERTIFICATE-----
MIIBmTCCAT6gAwIBAgIUdp4HyUi3GovdZTskMx5CZQms8NIwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKaG9va3MudGVzdDAgFw0yNjExMjExMTU1NTJaGA8yMTI2MTAy
ODExNTU1MlowFTETMBEGA1UEAwwKaG9va3MudGVzdDBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABEZGMX6bwDIwE/uv3OKZeVWu4pdRDvPosZ6/jicT6jswNPEEo+dN
InvrXPA9q5sAOaKfWUHSfjdCfxHDwoUObdejajBoMB0GA1UdDgQWBBTnAe1ASoJG
rBPtW0UkduADlBtf3TAfBgNVHSMEGDAWgBTnAe1ASoJGrBPtW0UkduADlBtf3TAP
BgNVHRMBAf8EBTADAQH/MBUGA1UdEQQOMAyCCmhvb2tzLnRlc3QwCgYIKoZIzj0E
AwIDSQAwRgIhAMNQGu1sIZZYl7v5aArGNIUbGMspRCDJ/J7Ok2LLjx3xAiEA8ucr
73P8sAQuLi+yWtRaV3RiEp9SzFoBj/BlV8sfXhc=
-----END CERTIFICATE-----`;
const TEST_KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgnfIvwMHA+bYUunvp
oz5+C6o3wwyg+Qwomqv6sda3QHShRANCAARGRjF+m8AyMBP7r9zimXlVruKXUQ7z
6LGev44nE+o7MDTxBKPnTSJ761zwPaubADmin1lB0n43Qn8Rw8KFDm3X
-----END PRIVATE KEY-----`;
