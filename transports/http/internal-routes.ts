/** The routes for services and operators, behind SERVICE_TOKEN: an agent's configuration, and a tenant's tier. */
import { z } from '@hono/zod-openapi';
import { mapReply, refusal } from '../../src/domain/errors.ts';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import type { Management } from './deps.ts';
import {
  agentAnswer,
  agentPathSchema,
  etag,
  tenantAnswer,
  tenantPathSchema,
  tierBodySchema,
} from './management-schemas.ts';
import { type Route, routesOf } from './route.ts';

type Served = Pick<Management, 'agents' | 'tenants'>;

const route = routesOf<Served>('internal');

const ONE_TENANT = refusal('INVALID_REQUEST', {
  message: 'Name one tenant: ?tenant_id=… or the header X-Tenant-ID.',
});

/** A service may ask about any tenant, and must name it. */
export const internalRoutes: readonly Route<Served>[] = [
  route({
    method: 'get',
    path: '/internal/agents/{id}/config',
    guard: 'service',
    summary: "An agent's newest configuration; the tenant is named in the query or by X-Tenant-ID.",
    takes: {
      param: agentPathSchema,
      query: z.object({ tenant_id: tenantIdSchema.optional() }),
      header: z.object({ 'x-tenant-id': tenantIdSchema.optional() }),
    },
    answer: { status: 200, description: 'The agent.', schema: agentAnswer, headers: etag },
    async run({ param, query, header }, _c, { agents }) {
      const named = [query.tenant_id, header['x-tenant-id']].filter((id) => id !== undefined);
      const [tenantId, another] = new Set(named);
      if (tenantId === undefined || another !== undefined) return { ok: false, error: ONE_TENANT };
      return agents.get(tenantId, param.id);
    },
  }),
  route({
    method: 'get',
    path: '/internal/tenants/{id}',
    guard: 'service',
    summary: "A tenant's tier, where one was set, and its requests of the day.",
    takes: { param: tenantPathSchema },
    answer: { status: 200, description: 'The tenant.', schema: tenantAnswer },
    run: async ({ param }, _c, { tenants }) =>
      mapReply(await tenants.tenant(param.id), ({ tenantId, tier, day, used }) => ({
        tenant_id: tenantId,
        tier: tier ?? null,
        day,
        used,
      })),
  }),
  route({
    method: 'put',
    path: '/internal/tenants/{id}',
    guard: 'service',
    summary: "Sets a tenant's tier, over whatever tier its requests name.",
    takes: { param: tenantPathSchema, json: tierBodySchema },
    asRuleIssues: true,
    answer: {
      status: 200,
      description: 'Set.',
      schema: tenantAnswer.pick({ tenant_id: true, tier: true }),
    },
    run: async ({ param, json: { tier } }, _c, { tenants }) =>
      mapReply(await tenants.setTier(param.id, tier), () => ({ tenant_id: param.id, tier })),
  }),
];
