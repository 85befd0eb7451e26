/** The probes: whether the node lives, whether it takes work, and what it is doing (PROTOCOL 3). */
import { z } from '@hono/zod-openapi';
import type { KnownProviders } from '../../src/domain/providers.ts';
import { HTTP_TIMING, type HttpDeps } from './deps.ts';
import { type Route, routesOf } from './route.ts';
import { shared } from './shared-answers.ts';

const healthSchema = z.object({ status: z.literal('ok') }).meta({ id: 'Health' });

const readinessSchema = z
  .object({
    status: z.enum(['ready', 'not_ready', 'draining']),
    checks: z.record(
      z.string(),
      z.object({ status: z.enum(['ok', 'failed']), latency_ms: z.number(), error: z.string().optional() }),
    ),
    providers: z
      .record(
        z.string(),
        z.object({
          status: z.enum(['configured', 'incomplete', 'failing']),
          missing: z.string().optional(),
        }),
      )
      .optional()
      .meta({
        description:
          'Model providers: which could answer, which variable others lack, and which fail so often that they are not asked for some seconds. Nobody is asked for it.',
      }),
    warnings: z
      .array(z.string())
      .optional()
      .meta({ description: 'Settings that can not work, though the node can.' }),
  })
  .meta({ id: 'Readiness' });
type Readiness = z.infer<typeof readinessSchema>;
type CheckResult = Readiness['checks'][string];

/** Figures for people and dashboards; their names are no promise. */
const figures = {
  status: 200,
  description: 'Figures.',
  schema: z.record(z.string(), z.unknown()).meta({ id: 'Figures' }),
} as const;

type Served = HttpDeps & {
  /** Answers with the AsyncAPI document. */
  readonly asyncApi: (ifNoneMatch: string | undefined) => Response;
  readonly ready: () => Promise<Readiness>;
};

/** Between two makings of the figures there is so many times as long as the last one took. */
const FIGURES_REST = 9;

/** What the probes serve: figures and readiness are worked out once for all who ask at the same time. */
export const probeDeps = (deps: HttpDeps, asyncApi: Served['asyncApi']): Served => ({
  ...deps,
  asyncApi,
  ready: shared(() => readiness(deps)),
  metricsText: shared(deps.metricsText, FIGURES_REST),
  overview: shared(deps.overview, FIGURES_REST),
});

const route = routesOf<Served>('probes');

/** `/health` and `/ready` are open; the others need the scope `metrics` where probes are guarded. */
export const probeRoutes: readonly Route<Served>[] = [
  route({
    method: 'get',
    path: '/health',
    guard: 'anybody',
    summary: 'The process answers.',
    takes: {},
    answer: { status: 200, description: 'Alive.', schema: healthSchema },
    run: () => ({ ok: true, value: { status: 'ok' as const } }),
  }),
  route({
    method: 'get',
    path: '/ready',
    guard: 'anybody',
    summary: 'The node takes work: nothing it depends on is down, and it is not draining.',
    takes: {},
    answer: { status: 200, description: 'Ready.', schema: readinessSchema },
    otherAnswers: {
      503: {
        description: 'Not ready, or draining.',
        content: { 'application/json': { schema: readinessSchema } },
      },
    },
    async run(_given, c, deps) {
      const value = await deps.ready();
      return value.status === 'ready' ? { ok: true, value } : c.json(value, 503);
    },
  }),
  route({
    method: 'get',
    path: '/asyncapi.json',
    guard: 'anybody',
    summary: 'Queues, actions and socket frames, as an AsyncAPI 3.0 document.',
    takes: {},
    answer: { status: 200, description: 'The document.', schema: z.record(z.string(), z.unknown()) },
    run: (_given, c, { asyncApi }) => asyncApi(c.req.header('if-none-match')),
  }),
  route({
    method: 'get',
    path: '/health/detailed',
    guard: 'metrics',
    summary: 'The node, its memory, its actors and what it depends on.',
    takes: {},
    answer: figures,
    async run(_given, _c, deps) {
      const { status, checks, providers } = await deps.ready();
      const value = {
        status,
        node_id: deps.nodeId,
        version: deps.version,
        uptime_s: Math.round(process.uptime()),
        memory: memory(),
        stats: stats(deps),
        cluster: deps.cluster?.(),
        checks,
        providers,
      };
      return { ok: true, value };
    },
  }),
  route({
    method: 'get',
    path: '/ws/stats',
    guard: 'metrics',
    summary: 'The sockets.',
    takes: {},
    answer: figures,
    run: (_given, _c, deps) => ({ ok: true, value: { ...deps.socketStats() } }),
  }),
  route({
    method: 'get',
    path: '/metrics/overview',
    guard: 'metrics',
    summary: 'The metrics at a glance.',
    takes: {},
    answer: figures,
    run: async (_given, _c, deps) => ({ ok: true, value: { ...(await deps.overview()) } }),
  }),
  route({
    method: 'get',
    path: '/metrics',
    guard: 'metrics',
    summary: 'The metrics for Prometheus.',
    takes: {},
    answer: { status: 200, description: 'Exposition.', mediaType: 'text/plain', schema: z.string() },
    async run(_given, c, deps) {
      const { contentType, body } = await deps.metricsText();
      return c.text(body, 200, { 'Content-Type': contentType });
    },
  }),
];

/** Asks everything the node depends on, at once, each within its time. */
async function readiness(deps: HttpDeps): Promise<Readiness> {
  const names = Object.keys(deps.checks);
  const results = await Promise.all(names.map(async (name) => [name, await runCheck(deps, name)] as const));
  const healthy = results.every(([, { status }]) => status === 'ok');
  const status = deps.draining() ? 'draining' : healthy ? 'ready' : 'not_ready';
  const checks = Object.fromEntries(results);
  const warnings = deps.warnings?.() ?? [];
  return {
    status,
    checks,
    ...(deps.providers ? { providers: providersIn(deps.providers, deps.openCircuits?.() ?? []) } : {}),
    ...(warnings.length > 0 ? { warnings: [...warnings] } : {}),
  };
}

const providersIn = (
  providers: KnownProviders,
  failing: readonly string[],
): NonNullable<Readiness['providers']> =>
  Object.fromEntries(
    [...providers].map(([name, missing]) => {
      if (missing !== undefined) return [name, { status: 'incomplete', missing }];
      return [name, { status: failing.includes(name) ? 'failing' : 'configured' }];
    }),
  );

/** A refusal whose reason names nothing that is not to be seen by anybody. */
const reasonSchema = z.object({ data: z.object({ details: z.object({ reason: z.string() }) }) });

async function runCheck({ checks, timing, log }: HttpDeps, name: string): Promise<CheckResult> {
  const { checkTimeoutMs } = { ...HTTP_TIMING, ...timing };
  const startedMs = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`no answer within ${checkTimeoutMs} ms`), checkTimeoutMs);
  });
  const check = async (): Promise<string | undefined> => {
    try {
      await checks[name]?.();
      return undefined;
    } catch (error) {
      // The reason may name hosts and users, and this route is open: the log has it, unless it is meant for anybody.
      log.warn({ err: error, check: name }, 'a readiness check failed');
      return reasonSchema.safeParse(error).data?.data.details.reason ?? 'failed';
    }
  };
  const error = await Promise.race([check(), late]);
  clearTimeout(timer);
  const latency_ms = Math.round((performance.now() - startedMs) * 10) / 10;
  return error === undefined ? { status: 'ok', latency_ms } : { status: 'failed', latency_ms, error };
}

function memory() {
  const { rss, heapUsed, heapTotal, external } = process.memoryUsage();
  return { rss_bytes: rss, heap_used_bytes: heapUsed, heap_total_bytes: heapTotal, external_bytes: external };
}

function stats(deps: HttpDeps) {
  const { actors, ...counts } = deps.directory.stats();
  return { ...counts, actors: actors.map(({ busyMs, ...rest }) => ({ ...rest, busy_ms: busyMs })) };
}
