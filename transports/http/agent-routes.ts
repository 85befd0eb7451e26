/** The agent routes: make, read, change, delete, try out, and change many at once (PROTOCOL 5). */
import type { Agent } from '../../src/domain/agent-record.ts';
import { refuseIssues } from '../../src/domain/agent-rules.ts';
import { defined } from '../../src/domain/defined.ts';
import { mapReply, type Reply } from '../../src/domain/errors.ts';
import { agentIdSchema } from '../../src/domain/ids.ts';
import { problemsOf } from '../../src/domain/problems.ts';
import type { Actor, AgentManagement } from '../../src/ports/management.ts';
import { actorOf, tenantOf } from './gate.ts';
import {
  agentAnswer,
  agentListSchema,
  agentPathSchema,
  bulkAnswer,
  bulkSchema,
  etag,
  fromTemplateSchema,
  ifMatchSchema,
  listQuery,
  locationAndEtag,
  madeAgentAnswer,
  pageAnswer,
  pageBody,
  validationAnswer,
  versionOf,
} from './management-schemas.ts';
import { described, type Route, routesOf } from './route.ts';

const route = routesOf<AgentManagement>('agents');
const made = {
  status: 201,
  description: 'Made.',
  schema: madeAgentAnswer,
  headers: locationAndEtag('/api/agents'),
} as const;

/** `put` replaces an agent, `patch` changes it. */
const updating = (method: 'put' | 'patch', summary: string, body: string) =>
  route({
    method,
    path: '/api/agents/{id}',
    guard: 'agents:write',
    summary,
    takes: { param: agentPathSchema, header: ifMatchSchema, json: described(body) },
    answer: { status: 200, description: 'The new version.', schema: agentAnswer, headers: etag },
    run({ param, header, json }, c, agents) {
      const options = { version: versionOf(header), replace: method === 'put' };
      return agents.update(actorOf(c), param.id, json, options);
    },
  });

/** Reading needs the scope `agents:read`, the rest `agents:write`. */
export const agentRoutes: readonly Route<AgentManagement>[] = [
  route({
    method: 'get',
    path: '/api/agents',
    guard: 'agents:read',
    summary: 'The agents in the order in which they were made; `q` looks into name, slug and description.',
    takes: { query: agentListSchema },
    answer: { status: 200, description: 'A page.', schema: pageAnswer(agentAnswer) },
    run: async ({ query }, c, agents) =>
      mapReply(await agents.list(tenantOf(c), listQuery(query)), (page) => pageBody(query, page)),
  }),
  route({
    method: 'post',
    path: '/api/agents',
    guard: 'agents:write',
    summary: 'Makes an agent; a name is enough.',
    takes: { json: described('AgentInput') },
    answer: made,
    run: async ({ json }, c, agents) => warned(agents, actorOf(c), await agents.create(actorOf(c), json)),
  }),
  route({
    method: 'post',
    path: '/api/agents/validate',
    guard: 'agents:write',
    summary: 'A dry run of making an agent, or of changing the one that `agent_id` names.',
    takes: { json: described('AgentValidate') },
    answer: {
      status: 200,
      description: 'Every broken rule, and the first tier that would allow it.',
      schema: validationAnswer,
    },
    async run({ json }, c, agents) {
      const { rest, taken } = takeOut(json, 'agent_id');
      const agentId = agentIdSchema.optional().safeParse(taken);
      if (!agentId.success) return { ok: false, error: refuseIssues(problemsOf(agentId.error, 'agent_id')) };
      const reply = await agents.validate(actorOf(c), rest, agentId.data);
      return mapReply(reply, ({ valid, issues, warnings }) => ({
        valid,
        issues: [...issues],
        ...(warnings ? { warnings: [...warnings] } : {}),
      }));
    },
  }),
  route({
    method: 'post',
    path: '/api/agents/bulk',
    guard: 'agents:write',
    summary: 'Changes many agents as one task; task notices tell how it goes.',
    takes: { json: bulkSchema },
    asRuleIssues: true,
    answer: { status: 202, description: 'Begun.', schema: bulkAnswer },
    run: async ({ json }, c, agents) =>
      mapReply(await agents.bulk(actorOf(c), json.items), ({ taskId }) => ({ task_id: taskId })),
  }),
  route({
    method: 'post',
    path: '/api/agents/from-template',
    guard: 'agents:write',
    summary: 'Makes an agent out of a template; `customizations` win over what the template says.',
    takes: { json: fromTemplateSchema },
    asRuleIssues: true,
    answer: made,
    async run({ json: { template_id, name, slug, customizations } }, c, agents) {
      const input = { ...customizations, ...defined({ name, slug }) };
      return warned(agents, actorOf(c), await agents.fromTemplate(actorOf(c), template_id, input));
    },
  }),
  route({
    method: 'get',
    path: '/api/agents/{id}',
    guard: 'agents:read',
    summary: 'An agent; its version is the ETag.',
    takes: { param: agentPathSchema },
    answer: { status: 200, description: 'The agent.', schema: agentAnswer, headers: etag },
    run: ({ param }, c, agents) => agents.get(tenantOf(c), param.id),
  }),
  updating('put', 'Replaces an agent: what the body leaves out gets its default.', 'AgentInput'),
  updating('patch', 'Changes an agent: what the body leaves out stays as it is.', 'AgentPatch'),
  route({
    method: 'delete',
    path: '/api/agents/{id}',
    guard: 'agents:write',
    summary: 'Deletes an agent; it can be restored.',
    takes: { param: agentPathSchema, header: ifMatchSchema },
    answer: { status: 204, description: 'Deleted.' },
    run: ({ param, header }, c, agents) =>
      agents.remove(actorOf(c), param.id, { version: versionOf(header) }),
  }),
];

/** A new agent, with what would keep it from answering as it says. */
async function warned(agents: AgentManagement, actor: Actor, reply: Reply<Agent>) {
  const warnings = reply.ok ? await agents.warnings(actor, reply.value) : [];
  return mapReply(reply, (agent) => (warnings.length > 0 ? { ...agent, warnings: [...warnings] } : agent));
}

/** The body's fields without `name`, and that field; a body that is no object stays whole. */
function takeOut(body: unknown, name: string): { readonly rest: unknown; readonly taken?: unknown } {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return { rest: body };
  const { [name]: taken, ...rest }: Record<string, unknown> = { ...body };
  return { rest, taken };
}
