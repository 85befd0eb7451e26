/** The routes over an agent's past: versions, what changed between them, who did it, and the ways back (PROTOCOL 5). */
import { createRoute, type OpenAPIHono } from '@hono/zod-openapi';
import type { AgentManagement } from '../../src/ports/management.ts';
import type { HttpDeps } from './deps.ts';
import { failure, type HttpEnv, refuse } from './errors.ts';
import { jsonBody, needs } from './gate.ts';
import { actorOf, pageBody, refuseIssues, tag } from './management-answers.ts';
import {
  agentAnswer,
  agentPathSchema,
  agentVersionPathSchema,
  auditAnswer,
  diffAnswer,
  diffQuerySchema,
  ifMatchSchema,
  pageAnswer,
  pagingSchema,
  rollbackSchema,
  versionOf,
} from './management-schemas.ts';

/** Adds the routes over versions and history. Reading needs the scope `agents:read`, the ways back `agents:write`. */
export function addAgentVersionRoutes(
  app: OpenAPIHono<HttpEnv>,
  deps: HttpDeps,
  agents: AgentManagement,
): void {
  const read = needs(deps.access, 'agents:read');
  const write = needs(deps.access, 'agents:write');
  const shared = { security: [{ bearer: [] }], tags: ['agents'] };
  const agent = { content: { 'application/json': { schema: agentAnswer } } };

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/agents/{id}/versions',
      summary: 'Every version of an agent, newest first.',
      middleware: read,
      request: { params: agentPathSchema, query: pagingSchema },
      responses: {
        200: {
          description: 'A page.',
          content: { 'application/json': { schema: pageAnswer(agentAnswer) } },
        },
        default: failure,
      },
    }),
    async (c) => {
      const query = c.req.valid('query');
      const reply = await agents.versions(c.get('caller').tenantId, c.req.valid('param').id);
      if (!reply.ok) return refuse(c, reply.error);
      const from = (query.page - 1) * query.page_size;
      const items = reply.value.slice(from, from + query.page_size);
      return c.json(pageBody(query, { items, total: reply.value.length }), 200);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/agents/{id}/versions/{version}',
      summary: 'One version of an agent.',
      middleware: read,
      request: { params: agentVersionPathSchema },
      responses: { 200: { description: 'The version.', ...agent }, default: failure },
    }),
    async (c) => {
      const { id, version } = c.req.valid('param');
      const reply = await agents.version(c.get('caller').tenantId, id, version);
      if (!reply.ok) return refuse(c, reply.error);
      tag(c, reply.value);
      return c.json(reply.value, 200);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/agents/{id}/diff',
      summary: 'What changed from one version to another.',
      middleware: read,
      request: { params: agentPathSchema, query: diffQuerySchema },
      responses: {
        200: { description: 'The changes.', content: { 'application/json': { schema: diffAnswer } } },
        default: failure,
      },
    }),
    async (c) => {
      const { from, to } = c.req.valid('query');
      const reply = await agents.diff(c.get('caller').tenantId, c.req.valid('param').id, from, to);
      return reply.ok ? c.json({ from, to, changes: [...reply.value] }, 200) : refuse(c, reply.error);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/agents/{id}/history',
      summary: 'Who changed what and when, newest first.',
      middleware: read,
      request: { params: agentPathSchema, query: pagingSchema },
      responses: {
        200: {
          description: 'A page.',
          content: { 'application/json': { schema: pageAnswer(auditAnswer) } },
        },
        default: failure,
      },
    }),
    async (c) => {
      const query = c.req.valid('query');
      const reply = await agents.history(c.get('caller').tenantId, c.req.valid('param').id, {
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
      path: '/api/agents/{id}/rollback',
      summary: 'Makes an earlier version the newest one again, as a version of its own.',
      middleware: [write, jsonBody],
      request: {
        params: agentPathSchema,
        headers: ifMatchSchema,
        body: { required: true, content: { 'application/json': { schema: rollbackSchema } } },
      },
      responses: { 200: { description: 'The new version.', ...agent }, default: failure },
    }),
    async (c) => {
      const expected = { version: versionOf(c.req.valid('header')) };
      const { version } = c.req.valid('json');
      const reply = await agents.rollback(actorOf(c), c.req.valid('param').id, version, expected);
      if (!reply.ok) return refuse(c, reply.error);
      tag(c, reply.value);
      return c.json(reply.value, 200);
    },
    refuseIssues,
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/agents/{id}/restore',
      summary: 'Undoes a delete.',
      middleware: write,
      request: { params: agentPathSchema },
      responses: { 200: { description: 'The agent.', ...agent }, default: failure },
    }),
    async (c) => {
      const reply = await agents.restore(actorOf(c), c.req.valid('param').id);
      if (!reply.ok) return refuse(c, reply.error);
      tag(c, reply.value);
      return c.json(reply.value, 200);
    },
  );
}
