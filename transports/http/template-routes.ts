/** The template routes: what agents can be made from; own ones where the tier has them (PROTOCOL 5). */
import { mapReply } from '../../src/domain/errors.ts';
import type { TemplateManagement } from '../../src/ports/management.ts';
import { actorOf } from './gate.ts';
import {
  etag,
  ifMatchSchema,
  locationAndEtag,
  pageAnswer,
  pageIn,
  pagingSchema,
  templateAnswer,
  templatePathSchema,
  versionOf,
} from './management-schemas.ts';
import { described, type Route, routesOf } from './route.ts';

const route = routesOf<TemplateManagement>('templates');

/** Reading needs the scope `agents:read`, the rest `agents:write`. */
export const templateRoutes: readonly Route<TemplateManagement>[] = [
  route({
    method: 'get',
    path: '/api/templates',
    guard: 'agents:read',
    summary: "The built-in templates that the tenant's tier includes, and its own.",
    takes: { query: pagingSchema },
    answer: { status: 200, description: 'A page.', schema: pageAnswer(templateAnswer) },
    run: async ({ query }, c, templates) =>
      mapReply(await templates.list(actorOf(c)), (all) => pageIn(query, all)),
  }),
  route({
    method: 'post',
    path: '/api/templates',
    guard: 'agents:write',
    summary: 'Makes a template of the tenant.',
    takes: { json: described('TemplateInput') },
    answer: {
      status: 201,
      description: 'Made.',
      schema: templateAnswer,
      headers: locationAndEtag('/api/templates'),
    },
    run: ({ json }, c, templates) => templates.create(actorOf(c), json),
  }),
  route({
    method: 'get',
    path: '/api/templates/{id}',
    guard: 'agents:read',
    summary: 'A template; its version is the ETag.',
    takes: { param: templatePathSchema },
    answer: { status: 200, description: 'The template.', schema: templateAnswer, headers: etag },
    run: ({ param }, c, templates) => templates.get(actorOf(c), param.id),
  }),
  route({
    method: 'put',
    path: '/api/templates/{id}',
    guard: 'agents:write',
    summary: 'Replaces a template of the tenant.',
    takes: { param: templatePathSchema, header: ifMatchSchema, json: described('TemplateInput') },
    answer: { status: 200, description: 'The new version.', schema: templateAnswer, headers: etag },
    run: ({ param, header, json }, c, templates) =>
      templates.update(actorOf(c), param.id, json, { version: versionOf(header) }),
  }),
  route({
    method: 'delete',
    path: '/api/templates/{id}',
    guard: 'agents:write',
    summary: 'Deletes a template of the tenant; agents made from it stay.',
    takes: { param: templatePathSchema },
    answer: { status: 204, description: 'Deleted.' },
    run: ({ param }, c, templates) => templates.remove(actorOf(c), param.id),
  }),
];
