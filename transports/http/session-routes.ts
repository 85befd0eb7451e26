/** The session routes: a conversation's history, and forgetting it (PROTOCOL 3). */
import { createRoute, type OpenAPIHono } from '@hono/zod-openapi';
import {
  messageBody,
  messagesSchema,
  pageQuerySchema,
  sessionPathSchema,
} from '../../src/domain/turn-schemas.ts';
import type { HttpDeps } from './deps.ts';
import { failure, type HttpEnv, refuse } from './errors.ts';
import { needs } from './gate.ts';

/** Adds the session routes. They need the scope `chat`; a session of another tenant is not found. */
export function addSessionRoutes(app: OpenAPIHono<HttpEnv>, deps: HttpDeps): void {
  const chat = needs(deps.access, 'chat');
  const shared = { security: [{ bearer: [] }], tags: ['sessions'], middleware: chat };

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/sessions/{session_id}/messages',
      summary: 'The conversation, newest message last; `before` pages towards its beginning.',
      request: { params: sessionPathSchema, query: pageQuerySchema },
      responses: {
        200: { description: 'A page.', content: { 'application/json': { schema: messagesSchema } } },
        default: failure,
      },
    }),
    async (c) => {
      const { limit, before } = c.req.valid('query');
      const { session_id } = c.req.valid('param');
      const page = await deps.directory.messages(c.get('caller').tenantId, session_id, { limit, before });
      if (!page.ok) return refuse(c, page.error);
      return c.json({ messages: page.value.messages.map(messageBody), has_more: page.value.hasMore }, 200);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'delete',
      path: '/api/sessions/{session_id}',
      summary: 'Cancels what runs, closes the session, and forgets the conversation.',
      request: { params: sessionPathSchema },
      responses: { 204: { description: 'Forgotten.' }, default: failure },
    }),
    async (c) => {
      const gone = await deps.directory.forget(c.get('caller').tenantId, c.req.valid('param').session_id);
      return gone.ok ? c.body(null, 204) : refuse(c, gone.error);
    },
  );
}
