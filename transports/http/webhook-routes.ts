/** The webhook routes: where notices are sent, what became of each delivery, and sending a dead one again (PROTOCOL 5). */
import { createRoute, type OpenAPIHono } from '@hono/zod-openapi';
import type { WebhookManagement } from '../../src/ports/management.ts';
import type { HttpDeps } from './deps.ts';
import { failure, type HttpEnv, refuse } from './errors.ts';
import { jsonBody, needs } from './gate.ts';
import { pageBody, refuseIssues } from './management-answers.ts';
import {
  deliveryAnswer,
  deliveryPathSchema,
  newWebhookAnswer,
  pageAnswer,
  pagingSchema,
  webhookAnswer,
  webhookBodySchema,
  webhookPathSchema,
} from './management-schemas.ts';

/** Adds the webhook routes. Reading needs the scope `agents:read`, the rest `agents:write`. */
export function addWebhookRoutes(
  app: OpenAPIHono<HttpEnv>,
  deps: HttpDeps,
  webhooks: WebhookManagement,
): void {
  const read = needs(deps.access, 'agents:read');
  const write = needs(deps.access, 'agents:write');
  const shared = { security: [{ bearer: [] }], tags: ['webhooks'] };

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/webhooks',
      summary: 'Sends notices to an https address from now on. The answer shows the secret, once.',
      description:
        'Signed as Standard Webhooks has it (webhook-id, webhook-timestamp, webhook-signature). The address must be ' +
        'a name that resolves to public addresses; redirects are not followed. Any 2xx counts as delivered.',
      middleware: [write, jsonBody],
      request: { body: { required: true, content: { 'application/json': { schema: webhookBodySchema } } } },
      responses: {
        201: { description: 'Made.', content: { 'application/json': { schema: newWebhookAnswer } } },
        default: failure,
      },
    }),
    async (c) => {
      const reply = await webhooks.create(c.get('caller').tenantId, c.req.valid('json'));
      if (!reply.ok) return refuse(c, reply.error);
      c.header('Location', `/api/webhooks/${reply.value.id}`);
      c.header('Cache-Control', 'no-store');
      return c.json(reply.value, 201);
    },
    refuseIssues,
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/webhooks',
      summary: "The tenant's webhooks, without their secrets.",
      middleware: read,
      request: { query: pagingSchema },
      responses: {
        200: {
          description: 'A page.',
          content: { 'application/json': { schema: pageAnswer(webhookAnswer) } },
        },
        default: failure,
      },
    }),
    async (c) => {
      const query = c.req.valid('query');
      const reply = await webhooks.list(c.get('caller').tenantId);
      if (!reply.ok) return refuse(c, reply.error);
      const from = (query.page - 1) * query.page_size;
      const items = reply.value.slice(from, from + query.page_size);
      return c.json(pageBody(query, { items, total: reply.value.length }), 200);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'delete',
      path: '/api/webhooks/{id}',
      summary: 'Ends a webhook and forgets its deliveries.',
      middleware: write,
      request: { params: webhookPathSchema },
      responses: { 204: { description: 'Ended.' }, default: failure },
    }),
    async (c) => {
      const reply = await webhooks.remove(c.get('caller').tenantId, c.req.valid('param').id);
      return reply.ok ? c.body(null, 204) : refuse(c, reply.error);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/webhooks/{id}/deliveries',
      summary: 'What was sent, what waits, and what failed for good; newest first.',
      middleware: read,
      request: { params: webhookPathSchema, query: pagingSchema },
      responses: {
        200: {
          description: 'A page.',
          content: { 'application/json': { schema: pageAnswer(deliveryAnswer) } },
        },
        default: failure,
      },
    }),
    async (c) => {
      const query = c.req.valid('query');
      const reply = await webhooks.deliveries(c.get('caller').tenantId, c.req.valid('param').id, {
        page: query.page,
        pageSize: query.page_size,
      });
      return reply.ok ? c.json(pageBody(query, reply.value), 200) : refuse(c, reply.error);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/webhooks/deliveries/{id}/replay',
      summary: 'Sends a dead delivery again, under the same webhook-id.',
      middleware: write,
      request: { params: deliveryPathSchema },
      responses: {
        202: { description: 'On its way.', content: { 'application/json': { schema: deliveryAnswer } } },
        default: failure,
      },
    }),
    async (c) => {
      const reply = await webhooks.replay(c.get('caller').tenantId, c.req.valid('param').id);
      return reply.ok ? c.json(reply.value, 202) : refuse(c, reply.error);
    },
  );
}
