/** A tenant's webhooks: made, listed and replayed here, and sent by the dispatcher. */
import { randomBytes, randomUUID } from 'node:crypto';
import type { Webhook, WebhookDelivery, WebhookInput } from '../../src/domain/agent-record.ts';
import { type ErrorData, RefusalError, type Reply, refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import { type UrlRules, urlProblem } from '../../src/domain/public-url.ts';
import type {
  ClaimedDelivery,
  Notices,
  RuleIssue,
  WebhookManagement,
  WebhookStore,
} from '../../src/ports/management.ts';
import {
  type Clock,
  type DeliveryMeter,
  type DeliveryStats,
  type Log,
  systemTimers,
  type Timers,
} from '../../src/ports/telemetry.ts';
import type { Resolve } from './addresses.ts';
import { createDispatcher, DISPATCH_TIMING, type DispatchTiming } from './dispatcher.ts';
import { systemResolve } from './names.ts';
import { createSender, secretProblem } from './send.ts';

/** Webhooks that one tenant may have. */
const MAX_WEBHOOKS = 20;
const SECRET_BYTES = 32;

export interface WebhookDeps {
  readonly store: WebhookStore;
  readonly notices: Notices;
  readonly clock: Clock;
  readonly log: Log;
  readonly meter: DeliveryMeter;
  /** Takes http: URLs too. Addresses that are not public stay out of reach all the same. */
  readonly allowInsecure: boolean;
  /** False lets webhooks reach this machine and its network: for tests, and for nodes whose tenants are trusted. */
  readonly blockPrivate?: boolean;
  readonly resolve?: Resolve;
  /** Certificates to trust instead of the usual ones. */
  readonly ca?: string;
  readonly timing?: Partial<DispatchTiming>;
  readonly timers?: Timers;
  /** From 0 to 1, for the jitter of retries. */
  readonly random?: () => number;
}

interface Webhooks extends WebhookManagement {
  /** Listens to notices, and takes up what an earlier process left undelivered. */
  start(): void;
  /** Waiting are those in memory; deliveries between two attempts wait in the store. */
  stats(): DeliveryStats;
  /** Breaks off running attempts, which are made again after the next start. Close the store after it. */
  close(): Promise<void>;
}

/**
 * Sends notices to the tenants' webhooks. Delivery: at least once, for as long as the attempts last; a notice is stored
 * before it is first sent. Order: none. Nothing is sent before `start`.
 */
export function createWebhooks(deps: WebhookDeps): Webhooks {
  const { store, clock, log, allowInsecure, blockPrivate = true, resolve = systemResolve } = deps;
  const { timers = systemTimers, random = Math.random } = deps;
  const timing = { ...DISPATCH_TIMING, ...deps.timing };
  const send = createSender({ resolve, blockPrivate, timeoutMs: timing.timeoutMs, ca: deps.ca });
  const dispatcher = createDispatcher({ ...deps, timing, send, timers, random });

  const stored = async <T>(work: () => Promise<Reply<T>>): Promise<Reply<T>> => {
    try {
      return await work();
    } catch (error) {
      log.warn({ err: error }, 'the store of webhooks failed');
      if (error instanceof RefusalError) return { ok: false, error: error.data };
      return { ok: false, error: refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }) };
    }
  };

  return {
    list: (tenantId) =>
      stored(async () => ({ ok: true, value: (await store.list(tenantId)).map(withoutSecret) })),
    create: (tenantId, input) =>
      stored(() => create(store, tenantId, input, { allowInsecure, blockPrivate }, clock.now())),
    remove: (tenantId, webhookId) =>
      stored(async () => {
        // First what runs: an attempt that ends later would write its delivery anew.
        await dispatcher.drop(tenantId, webhookId);
        return (await store.remove(tenantId, webhookId)) ? { ok: true, value: null } : notFound('webhook');
      }),
    deliveries: (tenantId, webhookId, page) =>
      stored(async () => {
        if (!(await find(store, tenantId, webhookId))) return notFound('webhook');
        return { ok: true, value: await store.deliveries(tenantId, webhookId, page) };
      }),
    replay: (tenantId, deliveryId) =>
      stored(async () => {
        const dead = await deadDelivery(store, tenantId, deliveryId);
        if (!dead.ok) return dead;
        const { delivery, webhook } = dead.value;
        const next_attempt_at = new Date(clock.now()).toISOString();
        const replayed: WebhookDelivery = { ...delivery, status: 'pending', attempts: 0, next_attempt_at };
        await dispatcher.take(replayed, webhook);
        return { ok: true, value: replayed };
      }),
    start: () => dispatcher.start(),
    stats: () => dispatcher.stats(),
    close: () => dispatcher.close(),
  };
}

async function create(
  store: WebhookStore,
  tenantId: TenantId,
  input: WebhookInput,
  rules: UrlRules,
  nowMs: number,
): Promise<Reply<Webhook>> {
  const secret = input.secret ?? `whsec_${randomBytes(SECRET_BYTES).toString('base64')}`;
  const issues = [...issue('url', urlProblem(input.url, rules)), ...issue('secret', secretProblem(secret))];
  if (issues.length > 0) return { ok: false, error: invalid(issues) };
  if ((await store.list(tenantId)).length >= MAX_WEBHOOKS)
    return conflict(`The tenant has its ${MAX_WEBHOOKS} webhooks already; delete one first.`);
  const webhook: Webhook = {
    id: `wh_${randomUUID()}`,
    tenant_id: tenantId,
    url: new URL(input.url).href,
    events: input.events === undefined ? null : [...new Set(input.events)],
    secret,
    created_at: new Date(nowMs).toISOString(),
  };
  await store.save(tenantId, webhook);
  return { ok: true, value: webhook };
}

/** A delivery that can be replayed. */
async function deadDelivery(
  store: WebhookStore,
  tenantId: TenantId,
  deliveryId: string,
): Promise<Reply<Omit<ClaimedDelivery, 'untilMs'>>> {
  const delivery = await store.delivery(tenantId, deliveryId);
  const webhook = delivery ? await find(store, tenantId, delivery.webhook_id) : undefined;
  if (!delivery || !webhook) return notFound('delivery');
  if (delivery.status !== 'dead')
    return conflict(`Only a dead delivery can be replayed; this one is ${delivery.status}.`);
  return { ok: true, value: { delivery, webhook } };
}

const withoutSecret = ({ secret: _, ...shown }: Webhook): Omit<Webhook, 'secret'> => shown;

const find = async (
  store: WebhookStore,
  tenantId: TenantId,
  webhookId: string,
): Promise<Webhook | undefined> => (await store.list(tenantId)).find(({ id }) => id === webhookId);

const issue = (field: string, problem: string | null): RuleIssue[] =>
  problem === null ? [] : [{ field, rule: field, message: problem }];

const invalid = (issues: readonly RuleIssue[]): ErrorData =>
  refusal('INVALID_REQUEST', {
    message: issues.map(({ field, message }) => `${field}: ${message}`).join('; '),
    details: { issues },
  });

const conflict = (message: string): { ok: false; error: ErrorData } => ({
  ok: false,
  error: refusal('CONFLICT', { message }),
});

const notFound = (kind: string): { ok: false; error: ErrorData } => ({
  ok: false,
  error: refusal('NOT_FOUND', { message: `The tenant has no such ${kind}.` }),
});
