/** The HTTP edge as one fetch function: gates, routes, refusals, and the OpenAPI document made out of their schemas. */
import { OpenAPIHono } from '@hono/zod-openapi';
import { asyncApi } from '../asyncapi/document.ts';
import type { Exchange, HttpHandler } from './adapter.ts';
import { agentRoutes } from './agent-routes.ts';
import { agentVersionRoutes } from './agent-version-routes.ts';
import { chatRoutes } from './chat-routes.ts';
import type { HttpDeps, Management } from './deps.ts';
import { failed, type HttpEnv, type KnownRoute, unknownRoute } from './errors.ts';
import { executionRoutes } from './execution-routes.ts';
import { allowOrigins, createGuards, type Guards, identified, notProxied, traced } from './gate.ts';
import { internalRoutes } from './internal-routes.ts';
import { describedBodies } from './management-schemas.ts';
import { probeDeps, probeRoutes } from './probe-routes.ts';
import { mountRoutes } from './route.ts';
import { sessionRoutes } from './session-routes.ts';
import { fixedJson } from './shared-answers.ts';
import { templateRoutes } from './template-routes.ts';
import { webhookRoutes } from './webhook-routes.ts';

const OPENAPI_PATH = '/openapi.json';
const TAGS = ['chat', 'sessions', 'executions', 'agents', 'templates', 'webhooks', 'internal', 'probes'];

interface HttpApp {
  /** Never throws or rejects: what breaks inside is logged and answered with INTERNAL. */
  readonly fetch: HttpHandler;
}

/** Builds the HTTP edge. Mount its `fetch` with `mountHttp`. */
export function createHttpApp(deps: HttpDeps): HttpApp {
  const { version, executions, management } = deps;
  const app = new OpenAPIHono<HttpEnv>();
  const guards = createGuards(deps);
  app.use(allowOrigins(deps.allowedOrigins));
  app.use(traced(deps.refusals));
  app.use(identified);
  app.use(notProxied(deps.proxied));
  mountRoutes(app, guards, chatRoutes, deps);
  mountRoutes(app, guards, sessionRoutes, deps.directory);
  if (executions) mountRoutes(app, guards, executionRoutes, { ...deps, executions });
  if (management) mountManagement(app, guards, management);
  // The document is made before anybody waits for it: it takes 15 ms.
  mountRoutes(app, guards, probeRoutes, probeDeps(deps, fixedJson(asyncApi({ version }))));

  app.openAPIRegistry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'JWT',
    description: 'AUTH_MODE=jwt. In open mode the header X-Tenant-ID says who is asking.',
  });
  const document = app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: { title: 'Nooble', version, description: 'Runs AI agents for many tenants: chat over HTTP.' },
    tags: TAGS.map((name) => ({ name })),
  });
  const openApi = fixedJson(document);
  app.get(OPENAPI_PATH, (c) => openApi(c.req.header('if-none-match')));
  app.notFound(unknownRoute(routesKnown(app)));
  app.onError(failed(deps.log));
  return { fetch: (request: Request, exchange: Exchange) => app.fetch(request, exchange) };
}

function mountManagement(app: OpenAPIHono<HttpEnv>, guards: Guards, management: Management): void {
  for (const [name, schema] of Object.entries(describedBodies)) app.openAPIRegistry.register(name, schema);
  app.openAPIRegistry.registerComponent('securitySchemes', 'service', {
    type: 'http',
    scheme: 'bearer',
    description: 'SERVICE_TOKEN.',
  });
  mountRoutes(app, guards, agentRoutes, management.agents);
  mountRoutes(app, guards, agentVersionRoutes, management.agents);
  mountRoutes(app, guards, templateRoutes, management.templates);
  mountRoutes(app, guards, webhookRoutes, management.webhooks);
  mountRoutes(app, guards, internalRoutes, management);
}

function routesKnown(app: OpenAPIHono<HttpEnv>): KnownRoute[] {
  const described = app.openAPIRegistry.definitions.flatMap((definition) =>
    definition.type === 'route' ? [{ method: definition.route.method, path: definition.route.path }] : [],
  );
  return [...described, { method: 'get', path: OPENAPI_PATH }];
}
