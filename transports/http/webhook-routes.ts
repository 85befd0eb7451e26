/** The webhook routes: where notices are sent, what became of each delivery, and sending a dead one again (PROTOCOL 5). */
import { mapReply } from '../../src/domain/errors.ts';
import type { WebhookManagement } from '../../src/ports/management.ts';
import { tenantOf } from './gate.ts';
import {
  deliveryAnswer,
  deliveryPathSchema,
  newWebhookAnswer,
  pageAnswer,
  pageBody,
  pageIn,
  pageRequest,
  pagingSchema,
  webhookAnswer,
  webhookBodySchema,
  webhookPathSchema,
} from './management-schemas.ts';
import { type Route, routesOf } from './route.ts';

const route = routesOf<WebhookManagement>('webhooks');

/** Reading needs the scope `agents:read`, the rest `agents:write`. */
export const webhookRoutes: readonly Route<WebhookManagement>[] = [
  route({
    method: 'post',
    path: '/api/webhooks',
    guard: 'agents:write',
    summary: 'Sends notices to an https address from now on. The answer shows the secret, once.',
    description:
      'Signed as Standard Webhooks has it (webhook-id, webhook-timestamp, webhook-signature). The address must be ' +
      'a name that resolves to public addresses; redirects are not followed. Any 2xx counts as delivered.',
    takes: { json: webhookBodySchema },
    asRuleIssues: true,
    answer: {
      status: 201,
      description: 'Made.',
      schema: newWebhookAnswer,
      headers: ({ id }) => ({ Location: `/api/webhooks/${id}`, 'Cache-Control': 'no-store' }),
    },
    run: ({ json }, c, webhooks) => webhooks.create(tenantOf(c), json),
  }),
  route({
    method: 'get',
    path: '/api/webhooks',
    guard: 'agents:read',
    summary: "The tenant's webhooks, without their secrets.",
    takes: { query: pagingSchema },
    answer: { status: 200, description: 'A page.', schema: pageAnswer(webhookAnswer) },
    run: async ({ query }, c, webhooks) =>
      mapReply(await webhooks.list(tenantOf(c)), (all) => pageIn(query, all)),
  }),
  route({
    method: 'delete',
    path: '/api/webhooks/{id}',
    guard: 'agents:write',
    summary: 'Ends a webhook and forgets its deliveries.',
    takes: { param: webhookPathSchema },
    answer: { status: 204, description: 'Ended.' },
    run: ({ param }, c, webhooks) => webhooks.remove(tenantOf(c), param.id),
  }),
  route({
    method: 'get',
    path: '/api/webhooks/{id}/deliveries',
    guard: 'agents:read',
    summary: 'What was sent, what waits, and what failed for good; newest first.',
    takes: { param: webhookPathSchema, query: pagingSchema },
    answer: { status: 200, description: 'A page.', schema: pageAnswer(deliveryAnswer) },
    run: async ({ param, query }, c, webhooks) =>
      mapReply(await webhooks.deliveries(tenantOf(c), param.id, pageRequest(query)), (page) =>
        pageBody(query, page),
      ),
  }),
  route({
    method: 'post',
    path: '/api/webhooks/deliveries/{id}/replay',
    guard: 'agents:write',
    summary: 'Sends a dead delivery again, under the same webhook-id.',
    takes: { param: deliveryPathSchema },
    answer: { status: 202, description: 'On its way.', schema: deliveryAnswer },
    run: ({ param }, c, webhooks) => webhooks.replay(tenantOf(c), param.id),
  }),
];
