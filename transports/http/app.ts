/** The HTTP edge as one fetch function: gates, routes, refusals, and the OpenAPI document made out of their schemas. */
import { OpenAPIHono } from '@hono/zod-openapi';
import { addAgentRoutes } from './agent-routes.ts';
import { addAgentVersionRoutes } from './agent-version-routes.ts';
import { addChatRoutes } from './chat-routes.ts';
import type { HttpDeps, Management } from './deps.ts';
import { failed, type HttpEnv, type KnownRoute, refuseInvalid, unknownRoute } from './errors.ts';
import type { Answer, Exchange } from './exchange.ts';
import { addExecutionRoutes } from './execution-routes.ts';
import { allowOrigins, identified } from './gate.ts';
import { addInternalRoutes } from './internal-routes.ts';
import { addProbeRoutes } from './probe-routes.ts';
import { addSessionRoutes } from './session-routes.ts';
import { addTemplateRoutes } from './template-routes.ts';
import { addWebhookRoutes } from './webhook-routes.ts';

const OPENAPI_PATH = '/openapi.json';

export interface HttpApp {
  /** Never throws or rejects: what breaks inside is logged and answered with INTERNAL. */
  readonly fetch: Answer;
}

/** Builds the HTTP edge. Mount its `fetch` with `mountHttp`. */
export function createHttpApp(deps: HttpDeps): HttpApp {
  const app = new OpenAPIHono<HttpEnv>({ defaultHook: refuseInvalid });
  app.use(allowOrigins(deps.allowedOrigins));
  app.use(identified);
  addChatRoutes(app, deps);
  addSessionRoutes(app, deps);
  if (deps.executions) addExecutionRoutes(app, deps, deps.executions);
  if (deps.management) addManagementRoutes(app, deps, deps.management);
  addProbeRoutes(app, deps);

  app.openAPIRegistry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'JWT',
    description: 'AUTH_MODE=jwt. In open mode the header X-Tenant-ID says who is asking.',
  });
  const document = describe(app, deps.version);
  app.get(OPENAPI_PATH, (c) => c.json(document));
  app.notFound(unknownRoute(routesOf(app)));
  app.onError(failed(deps.log));
  return { fetch: (request: Request, exchange: Exchange) => app.fetch(request, exchange) };
}

function addManagementRoutes(app: OpenAPIHono<HttpEnv>, deps: HttpDeps, management: Management): void {
  const { agents, templates, webhooks, tenants } = management;
  addAgentRoutes(app, deps, agents);
  addAgentVersionRoutes(app, deps, agents);
  addTemplateRoutes(app, deps, templates);
  addWebhookRoutes(app, deps, webhooks);
  addInternalRoutes(app, { serviceToken: deps.serviceToken, agents, tenants });
}

const describe = (app: OpenAPIHono<HttpEnv>, version: string) =>
  app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: { title: 'Nooble', version, description: 'Runs AI agents for many tenants: chat over HTTP.' },
    tags: ['chat', 'sessions', 'executions', 'agents', 'templates', 'webhooks', 'internal', 'probes'].map(
      (name) => ({
        name,
      }),
    ),
  });

function routesOf(app: OpenAPIHono<HttpEnv>): KnownRoute[] {
  const described = app.openAPIRegistry.definitions.flatMap((definition) =>
    definition.type === 'route' ? [{ method: definition.route.method, path: definition.route.path }] : [],
  );
  return [...described, { method: 'get', path: OPENAPI_PATH }];
}
