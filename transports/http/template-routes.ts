/** The template routes: what agents can be made from; own ones where the tier has them (PROTOCOL 5). */
import { createRoute, type OpenAPIHono } from '@hono/zod-openapi';
import type { TemplateManagement } from '../../src/ports/management.ts';
import type { HttpDeps } from './deps.ts';
import { failure, type HttpEnv, refuse } from './errors.ts';
import { jsonBody, needs } from './gate.ts';
import { actorOf, described, pageBody, rawBody, tag } from './management-answers.ts';
import {
  ifMatchSchema,
  pageAnswer,
  pagingSchema,
  templateAnswer,
  templatePathSchema,
  versionOf,
} from './management-schemas.ts';

/** Adds the template routes. Reading needs the scope `agents:read`, the rest `agents:write`. */
export function addTemplateRoutes(
  app: OpenAPIHono<HttpEnv>,
  deps: HttpDeps,
  templates: TemplateManagement,
): void {
  const read = needs(deps.access, 'agents:read');
  const write = needs(deps.access, 'agents:write');
  const shared = { security: [{ bearer: [] }], tags: ['templates'] };
  const template = { content: { 'application/json': { schema: templateAnswer } } };

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/templates',
      summary: "The built-in templates that the tenant's tier includes, and its own.",
      middleware: read,
      request: { query: pagingSchema },
      responses: {
        200: {
          description: 'A page.',
          content: { 'application/json': { schema: pageAnswer(templateAnswer) } },
        },
        default: failure,
      },
    }),
    async (c) => {
      const query = c.req.valid('query');
      const reply = await templates.list(actorOf(c));
      if (!reply.ok) return refuse(c, reply.error);
      const from = (query.page - 1) * query.page_size;
      const items = reply.value.slice(from, from + query.page_size);
      return c.json(pageBody(query, { items, total: reply.value.length }), 200);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/templates',
      summary: 'Makes a template of the tenant.',
      middleware: [write, jsonBody],
      request: described('TemplateInput'),
      responses: { 201: { description: 'Made.', ...template }, default: failure },
    }),
    async (c) => {
      const reply = await templates.create(actorOf(c), await rawBody(c));
      if (!reply.ok) return refuse(c, reply.error);
      c.header('Location', `/api/templates/${reply.value.id}`);
      tag(c, reply.value);
      return c.json(reply.value, 201);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/templates/{id}',
      summary: 'A template; its version is the ETag.',
      middleware: read,
      request: { params: templatePathSchema },
      responses: { 200: { description: 'The template.', ...template }, default: failure },
    }),
    async (c) => {
      const reply = await templates.get(actorOf(c), c.req.valid('param').id);
      if (!reply.ok) return refuse(c, reply.error);
      tag(c, reply.value);
      return c.json(reply.value, 200);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'put',
      path: '/api/templates/{id}',
      summary: 'Replaces a template of the tenant.',
      middleware: [write, jsonBody],
      request: { params: templatePathSchema, headers: ifMatchSchema, ...described('TemplateInput') },
      responses: { 200: { description: 'The new version.', ...template }, default: failure },
    }),
    async (c) => {
      const expected = { version: versionOf(c.req.valid('header')) };
      const reply = await templates.update(actorOf(c), c.req.valid('param').id, await rawBody(c), expected);
      if (!reply.ok) return refuse(c, reply.error);
      tag(c, reply.value);
      return c.json(reply.value, 200);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'delete',
      path: '/api/templates/{id}',
      summary: 'Deletes a template of the tenant; agents made from it stay.',
      middleware: write,
      request: { params: templatePathSchema },
      responses: { 204: { description: 'Deleted.' }, default: failure },
    }),
    async (c) => {
      const reply = await templates.remove(actorOf(c), c.req.valid('param').id);
      return reply.ok ? c.body(null, 204) : refuse(c, reply.error);
    },
  );
}
