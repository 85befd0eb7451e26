/** The routes for services and operators, behind SERVICE_TOKEN: an agent's configuration, and a tenant's tier. */
import { createRoute, type OpenAPIHono, z } from '@hono/zod-openapi';
import { createMiddleware } from 'hono/factory';
import { refusal } from '../../src/domain/errors.ts';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import type { AgentManagement, TenantAdmin } from '../../src/ports/management.ts';
import { createServiceCheck, NO_SERVICE_TOKEN, readBearer } from '../wire/access.ts';
import { failure, type HttpEnv, refuse } from './errors.ts';
import { jsonBody } from './gate.ts';
import { refuseIssues, tag } from './management-answers.ts';
import {
  agentAnswer,
  agentPathSchema,
  tenantAnswer,
  tenantPathSchema,
  tierBodySchema,
} from './management-schemas.ts';

export interface InternalDeps {
  /** Undefined: every route answers 403 and says why. */
  readonly serviceToken: string | undefined;
  readonly agents: AgentManagement;
  readonly tenants: TenantAdmin;
}

/** Adds `/internal/*`. A service may ask about any tenant, and must name it. */
export function addInternalRoutes(app: OpenAPIHono<HttpEnv>, deps: InternalDeps): void {
  const service = needsService(deps.serviceToken);
  const shared = { security: [{ service: [] }], tags: ['internal'] };
  app.openAPIRegistry.registerComponent('securitySchemes', 'service', {
    type: 'http',
    scheme: 'bearer',
    description: 'SERVICE_TOKEN.',
  });

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/internal/agents/{id}/config',
      summary: "An agent's newest configuration; the tenant is named in the query or by X-Tenant-ID.",
      middleware: service,
      request: {
        params: agentPathSchema,
        query: z.object({ tenant_id: tenantIdSchema.optional() }),
        headers: z.object({ 'x-tenant-id': tenantIdSchema.optional() }),
      },
      responses: {
        200: { description: 'The agent.', content: { 'application/json': { schema: agentAnswer } } },
        default: failure,
      },
    }),
    async (c) => {
      const named = [c.req.valid('query').tenant_id, c.req.valid('header')['x-tenant-id']];
      const tenants = new Set(named.filter((one) => one !== undefined));
      const [tenantId, another] = tenants;
      if (tenantId === undefined || another !== undefined)
        return refuse(
          c,
          refusal('INVALID_REQUEST', { message: 'Name one tenant: ?tenant_id=… or the header X-Tenant-ID.' }),
        );
      const reply = await deps.agents.get(tenantId, c.req.valid('param').id);
      if (!reply.ok) return refuse(c, reply.error);
      tag(c, reply.value);
      return c.json(reply.value, 200);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/internal/tenants/{id}',
      summary: "A tenant's tier, where one was set, and its requests of the day.",
      middleware: service,
      request: { params: tenantPathSchema },
      responses: {
        200: { description: 'The tenant.', content: { 'application/json': { schema: tenantAnswer } } },
        default: failure,
      },
    }),
    async (c) => {
      const reply = await deps.tenants.tenant(c.req.valid('param').id);
      if (!reply.ok) return refuse(c, reply.error);
      const { tenantId, tier, day, used } = reply.value;
      return c.json({ tenant_id: tenantId, tier: tier ?? null, day, used }, 200);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'put',
      path: '/internal/tenants/{id}',
      summary: "Sets a tenant's tier, over whatever tier its requests name.",
      middleware: [service, jsonBody],
      request: {
        params: tenantPathSchema,
        body: { required: true, content: { 'application/json': { schema: tierBodySchema } } },
      },
      responses: {
        200: {
          description: 'Set.',
          content: { 'application/json': { schema: tenantAnswer.pick({ tenant_id: true, tier: true }) } },
        },
        default: failure,
      },
    }),
    async (c) => {
      const tenantId = c.req.valid('param').id;
      const { tier } = c.req.valid('json');
      const reply = await deps.tenants.setTier(tenantId, tier);
      return reply.ok ? c.json({ tenant_id: tenantId, tier }, 200) : refuse(c, reply.error);
    },
    refuseIssues,
  );
}

function needsService(token: string | undefined) {
  const isToken = token === undefined ? undefined : createServiceCheck(token);
  return createMiddleware<HttpEnv>(async (c, next) => {
    if (!isToken) return refuse(c, NO_SERVICE_TOKEN);
    const given = readBearer(c.req.header('authorization'));
    if (given === undefined || !isToken(given))
      return refuse(
        c,
        refusal('UNAUTHENTICATED', {
          message: 'A service is needed here: send `Authorization: Bearer <SERVICE_TOKEN>`.',
        }),
      );
    await next();
  });
}
