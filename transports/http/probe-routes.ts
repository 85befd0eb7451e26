/** The probes: whether the node lives, whether it takes work, and what it is doing (PROTOCOL 3). */

import { createRoute, type OpenAPIHono, z } from '@hono/zod-openapi';
import { createMiddleware } from 'hono/factory';
import { asyncApi } from '../asyncapi/document.ts';
import { HTTP_TIMING, type HttpDeps } from './deps.ts';
import { failure, type HttpEnv } from './errors.ts';
import { needs } from './gate.ts';
import { figuresSchema, healthSchema, readinessSchema } from './probe-schemas.ts';

type Readiness = z.infer<typeof readinessSchema>;
type CheckResult = Readiness['checks'][string];

/** Adds the probes. `/health` and `/ready` are open; the others need the scope `metrics` where probes are guarded. */
export function addProbeRoutes(app: OpenAPIHono<HttpEnv>, deps: HttpDeps): void {
  const open = createMiddleware<HttpEnv>((_c, next) => next());
  const metrics = deps.guardProbes ? needs(deps.access, 'metrics') : open;
  const guarded = { security: [{ bearer: [] }], tags: ['probes'], middleware: metrics };
  const figures = {
    200: { description: 'Figures.', content: { 'application/json': { schema: figuresSchema } } },
    default: failure,
  } as const;
  const ready = { content: { 'application/json': { schema: readinessSchema } } };

  app.openapi(
    createRoute({
      method: 'get',
      path: '/health',
      tags: ['probes'],
      summary: 'The process answers.',
      responses: {
        200: { description: 'Alive.', content: { 'application/json': { schema: healthSchema } } },
      },
    }),
    (c) => c.json({ status: 'ok' as const }, 200),
  );
  app.openapi(
    createRoute({
      method: 'get',
      path: '/ready',
      tags: ['probes'],
      summary: 'The node takes work: nothing it depends on is down, and it is not draining.',
      responses: {
        200: { description: 'Ready.', ...ready },
        503: { description: 'Not ready, or draining.', ...ready },
      },
    }),
    async (c) => {
      const answer = await readiness(deps);
      return c.json(answer, answer.status === 'ready' ? 200 : 503);
    },
  );
  // Made before anybody waits: it takes 15 ms.
  const described = asyncApi({ version: deps.version });
  app.openapi(
    createRoute({
      method: 'get',
      path: '/asyncapi.json',
      tags: ['probes'],
      summary: 'Queues, actions and socket frames, as an AsyncAPI 3.0 document.',
      responses: {
        200: {
          description: 'The document.',
          content: { 'application/json': { schema: z.record(z.string(), z.unknown()) } },
        },
      },
    }),
    (c) => {
      return c.json(described, 200);
    },
  );
  app.openapi(
    createRoute({
      ...guarded,
      method: 'get',
      path: '/health/detailed',
      summary: 'The node, its memory, its actors and what it depends on.',
      responses: figures,
    }),
    async (c) => {
      const { status, checks } = await readiness(deps);
      return c.json(
        {
          status,
          node_id: deps.nodeId,
          version: deps.version,
          uptime_s: Math.round(process.uptime()),
          memory: memory(),
          stats: stats(deps),
          checks,
        },
        200,
      );
    },
  );
  app.openapi(
    createRoute({
      ...guarded,
      method: 'get',
      path: '/ws/stats',
      summary: 'The sockets.',
      responses: figures,
    }),
    (c) => c.json({ ...deps.socketStats() }, 200),
  );
  app.openapi(
    createRoute({
      ...guarded,
      method: 'get',
      path: '/metrics/overview',
      summary: 'The metrics at a glance.',
      responses: figures,
    }),
    async (c) => c.json({ ...(await deps.overview()) }, 200),
  );
  app.openapi(
    createRoute({
      ...guarded,
      method: 'get',
      path: '/metrics',
      summary: 'The metrics for Prometheus.',
      responses: {
        200: { description: 'Exposition.', content: { 'text/plain': { schema: z.string() } } },
        default: failure,
      },
    }),
    async (c) => {
      const { contentType, body } = await deps.metricsText();
      return c.text(body, 200, { 'Content-Type': contentType });
    },
  );
}

/** Asks everything the node depends on, at once, each within its time. */
async function readiness(deps: HttpDeps): Promise<Readiness> {
  const timeoutMs = deps.timing?.checkTimeoutMs ?? HTTP_TIMING.checkTimeoutMs;
  const names = Object.keys(deps.checks);
  const results = await Promise.all(names.map((name) => runCheck(deps, name, timeoutMs)));
  const checks = Object.fromEntries(names.map((name, index) => [name, results[index] ?? NEVER_RUN]));
  const healthy = results.every((result) => result.status === 'ok');
  return { status: deps.draining() ? 'draining' : healthy ? 'ready' : 'not_ready', checks };
}

const NEVER_RUN: CheckResult = { status: 'failed', latency_ms: 0 };

async function runCheck(deps: HttpDeps, name: string, timeoutMs: number): Promise<CheckResult> {
  const startedMs = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`no answer within ${timeoutMs} ms`), timeoutMs);
  });
  const asked = Promise.resolve()
    .then(() => deps.checks[name]?.())
    .then(
      () => undefined,
      (error: unknown) => {
        // The reason may name hosts and users, and this route is open: the log has it.
        deps.log.warn({ err: error, check: name }, 'a readiness check failed');
        return 'failed';
      },
    );
  const problem = await Promise.race([asked, late]);
  clearTimeout(timer);
  const latency_ms = Math.round((performance.now() - startedMs) * 10) / 10;
  return problem === undefined
    ? { status: 'ok', latency_ms }
    : { status: 'failed', latency_ms, error: problem };
}

function memory() {
  const { rss, heapUsed, heapTotal, external } = process.memoryUsage();
  return { rss_bytes: rss, heap_used_bytes: heapUsed, heap_total_bytes: heapTotal, external_bytes: external };
}

function stats(deps: HttpDeps) {
  const { actors, ...counts } = deps.directory.stats();
  return { ...counts, actors: actors.map(({ busyMs, ...rest }) => ({ ...rest, busy_ms: busyMs })) };
}
