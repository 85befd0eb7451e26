/** The agent routes: make, read, change, delete, try out, and change many at once (PROTOCOL 5). */
import { createRoute, type OpenAPIHono } from '@hono/zod-openapi';
import { agentIdSchema } from '../../src/domain/ids.ts';
import type { AgentManagement } from '../../src/ports/management.ts';
import type { HttpDeps } from './deps.ts';
import { failure, type HttpEnv, refuse } from './errors.ts';
import { jsonBody, needs } from './gate.ts';
import {
  actorOf,
  described,
  invalidWithIssues,
  pageBody,
  rawBody,
  refuseIssues,
  tag,
  takeOut,
} from './management-answers.ts';
import {
  agentAnswer,
  agentListSchema,
  agentPathSchema,
  bulkAnswer,
  bulkSchema,
  describedBodies,
  fromTemplateSchema,
  ifMatchSchema,
  listQuery,
  pageAnswer,
  validationAnswer,
  versionOf,
} from './management-schemas.ts';

/** Adds the agent routes. Reading needs the scope `agents:read`, the rest `agents:write`. */
export function addAgentRoutes(app: OpenAPIHono<HttpEnv>, deps: HttpDeps, agents: AgentManagement): void {
  const read = needs(deps.access, 'agents:read');
  const write = needs(deps.access, 'agents:write');
  const shared = { security: [{ bearer: [] }], tags: ['agents'] };
  const agent = { content: { 'application/json': { schema: agentAnswer } } };
  for (const [name, schema] of Object.entries(describedBodies)) app.openAPIRegistry.register(name, schema);

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/agents',
      summary: 'The agents, newest change first; `q` looks into name, slug and description.',
      middleware: read,
      request: { query: agentListSchema },
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
      const reply = await agents.list(c.get('caller').tenantId, listQuery(query));
      return reply.ok ? c.json(pageBody(query, reply.value), 200) : refuse(c, reply.error);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/agents',
      summary: 'Makes an agent; a name is enough.',
      middleware: [write, jsonBody],
      request: described('AgentInput'),
      responses: { 201: { description: 'Made.', ...agent }, default: failure },
    }),
    async (c) => {
      const reply = await agents.create(actorOf(c), await rawBody(c));
      if (!reply.ok) return refuse(c, reply.error);
      c.header('Location', `/api/agents/${reply.value.id}`);
      tag(c, reply.value);
      return c.json(reply.value, 201);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/agents/validate',
      summary: 'A dry run of making an agent, or of changing the one that `agent_id` names.',
      middleware: [write, jsonBody],
      request: described('AgentValidate'),
      responses: {
        200: {
          description: 'Every broken rule, and the first tier that would allow it.',
          content: { 'application/json': { schema: validationAnswer } },
        },
        default: failure,
      },
    }),
    async (c) => {
      const { rest, taken } = takeOut(await rawBody(c), 'agent_id');
      const agentId = agentIdSchema.optional().safeParse(taken);
      if (!agentId.success) return refuse(c, invalidWithIssues(agentId.error, 'agent_id'));
      const reply = await agents.validate(actorOf(c), rest, agentId.data);
      if (!reply.ok) return refuse(c, reply.error);
      return c.json({ valid: reply.value.valid, issues: [...reply.value.issues] }, 200);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/agents/bulk',
      summary: 'Changes many agents as one task; task notices tell how it goes.',
      middleware: [write, jsonBody],
      request: { body: { required: true, content: { 'application/json': { schema: bulkSchema } } } },
      responses: {
        202: { description: 'Begun.', content: { 'application/json': { schema: bulkAnswer } } },
        default: failure,
      },
    }),
    async (c) => {
      const reply = await agents.bulk(actorOf(c), c.req.valid('json').items);
      return reply.ok ? c.json({ task_id: reply.value.taskId }, 202) : refuse(c, reply.error);
    },
    refuseIssues,
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/agents/from-template',
      summary: 'Makes an agent out of a template; `customizations` win over what the template says.',
      middleware: [write, jsonBody],
      request: { body: { required: true, content: { 'application/json': { schema: fromTemplateSchema } } } },
      responses: { 201: { description: 'Made.', ...agent }, default: failure },
    }),
    async (c) => {
      const { template_id, name, slug, customizations } = c.req.valid('json');
      const input = { ...customizations, name, ...(slug === undefined ? {} : { slug }) };
      const reply = await agents.fromTemplate(actorOf(c), template_id, input);
      if (!reply.ok) return refuse(c, reply.error);
      c.header('Location', `/api/agents/${reply.value.id}`);
      tag(c, reply.value);
      return c.json(reply.value, 201);
    },
    refuseIssues,
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/agents/{id}',
      summary: 'An agent; its version is the ETag.',
      middleware: read,
      request: { params: agentPathSchema },
      responses: { 200: { description: 'The agent.', ...agent }, default: failure },
    }),
    async (c) => {
      const reply = await agents.get(c.get('caller').tenantId, c.req.valid('param').id);
      if (!reply.ok) return refuse(c, reply.error);
      tag(c, reply.value);
      return c.json(reply.value, 200);
    },
  );

  for (const method of ['put', 'patch'] as const) {
    const replace = method === 'put';
    app.openapi(
      createRoute({
        ...shared,
        method,
        path: '/api/agents/{id}',
        summary: replace
          ? 'Replaces an agent: what the body leaves out gets its default.'
          : 'Changes an agent: what the body leaves out stays as it is.',
        middleware: [write, jsonBody],
        request: {
          params: agentPathSchema,
          headers: ifMatchSchema,
          ...described(replace ? 'AgentInput' : 'AgentPatch'),
        },
        responses: { 200: { description: 'The new version.', ...agent }, default: failure },
      }),
      async (c) => {
        const options = { version: versionOf(c.req.valid('header')), replace };
        const reply = await agents.update(actorOf(c), c.req.valid('param').id, await rawBody(c), options);
        if (!reply.ok) return refuse(c, reply.error);
        tag(c, reply.value);
        return c.json(reply.value, 200);
      },
    );
  }

  app.openapi(
    createRoute({
      ...shared,
      method: 'delete',
      path: '/api/agents/{id}',
      summary: 'Deletes an agent; it can be restored.',
      middleware: write,
      request: { params: agentPathSchema, headers: ifMatchSchema },
      responses: { 204: { description: 'Deleted.' }, default: failure },
    }),
    async (c) => {
      const expected = { version: versionOf(c.req.valid('header')) };
      const reply = await agents.remove(actorOf(c), c.req.valid('param').id, expected);
      return reply.ok ? c.body(null, 204) : refuse(c, reply.error);
    },
  );
}
