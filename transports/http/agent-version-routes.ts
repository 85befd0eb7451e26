/** The routes over an agent's past: versions, what changed between them, who did it, and the ways back (PROTOCOL 5). */
import { mapReply } from '../../src/domain/errors.ts';
import type { AgentManagement } from '../../src/ports/management.ts';
import { actorOf, tenantOf } from './gate.ts';
import {
  agentAnswer,
  agentPathSchema,
  agentVersionPathSchema,
  auditAnswer,
  diffAnswer,
  diffQuerySchema,
  etag,
  ifMatchSchema,
  pageAnswer,
  pageBody,
  pageRequest,
  pagingSchema,
  rollbackSchema,
  versionOf,
} from './management-schemas.ts';
import { type Route, routesOf } from './route.ts';

const route = routesOf<AgentManagement>('agents');

/** Reading needs the scope `agents:read`, the ways back `agents:write`. */
export const agentVersionRoutes: readonly Route<AgentManagement>[] = [
  route({
    method: 'get',
    path: '/api/agents/{id}/versions',
    guard: 'agents:read',
    summary: 'The last 1,000 versions of an agent, newest first.',
    takes: { param: agentPathSchema, query: pagingSchema },
    answer: { status: 200, description: 'A page.', schema: pageAnswer(agentAnswer) },
    run: async ({ param, query }, c, agents) =>
      mapReply(await agents.versions(tenantOf(c), param.id, pageRequest(query)), (page) =>
        pageBody(query, page),
      ),
  }),
  route({
    method: 'get',
    path: '/api/agents/{id}/versions/{version}',
    guard: 'agents:read',
    summary: 'One version of an agent.',
    takes: { param: agentVersionPathSchema },
    answer: { status: 200, description: 'The version.', schema: agentAnswer, headers: etag },
    run: ({ param: { id, version } }, c, agents) => agents.version(tenantOf(c), id, version),
  }),
  route({
    method: 'get',
    path: '/api/agents/{id}/diff',
    guard: 'agents:read',
    summary: 'What changed from one version to another.',
    takes: { param: agentPathSchema, query: diffQuerySchema },
    answer: { status: 200, description: 'The changes.', schema: diffAnswer },
    run: async ({ param, query: { from, to } }, c, agents) =>
      mapReply(await agents.diff(tenantOf(c), param.id, from, to), (changes) => ({
        from,
        to,
        changes: [...changes],
      })),
  }),
  route({
    method: 'get',
    path: '/api/agents/{id}/history',
    guard: 'agents:read',
    summary: 'Who changed what and when, newest first.',
    takes: { param: agentPathSchema, query: pagingSchema },
    answer: { status: 200, description: 'A page.', schema: pageAnswer(auditAnswer) },
    run: async ({ param, query }, c, agents) =>
      mapReply(await agents.history(tenantOf(c), param.id, pageRequest(query)), (page) =>
        pageBody(query, page),
      ),
  }),
  route({
    method: 'post',
    path: '/api/agents/{id}/rollback',
    guard: 'agents:write',
    summary: 'Makes an earlier version the newest one again, as a version of its own.',
    takes: { param: agentPathSchema, header: ifMatchSchema, json: rollbackSchema },
    asRuleIssues: true,
    answer: { status: 200, description: 'The new version.', schema: agentAnswer, headers: etag },
    run: ({ param, header, json }, c, agents) =>
      agents.rollback(actorOf(c), param.id, json.version, { version: versionOf(header) }),
  }),
  route({
    method: 'post',
    path: '/api/agents/{id}/restore',
    guard: 'agents:write',
    summary: 'Undoes a delete.',
    takes: { param: agentPathSchema },
    answer: { status: 200, description: 'The agent.', schema: agentAnswer, headers: etag },
    run: ({ param }, c, agents) => agents.restore(actorOf(c), param.id),
  }),
];
