/** The session routes: a conversation's history, and forgetting it (PROTOCOL 3). */
import { mapReply } from '../../src/domain/errors.ts';
import {
  messageBody,
  messagesSchema,
  pageQuerySchema,
  sessionPathSchema,
} from '../../src/domain/turn-schemas.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import { tenantOf } from './gate.ts';
import { type Route, routesOf } from './route.ts';

const route = routesOf<Directory>('sessions');

/** They need the scope `chat`; a session of another tenant is not found. */
export const sessionRoutes: readonly Route<Directory>[] = [
  route({
    method: 'get',
    path: '/api/sessions/{session_id}/messages',
    guard: 'chat',
    summary: 'The conversation, newest message last; `before` pages towards its beginning.',
    takes: { param: sessionPathSchema, query: pageQuerySchema },
    answer: { status: 200, description: 'A page.', schema: messagesSchema },
    run: async ({ param, query: { limit, before } }, c, directory) =>
      mapReply(await directory.messages(tenantOf(c), param.session_id, { limit, before }), (page) => ({
        messages: page.messages.map(messageBody),
        has_more: page.hasMore,
      })),
  }),
  route({
    method: 'delete',
    path: '/api/sessions/{session_id}',
    guard: 'chat',
    summary: 'Cancels what runs, closes the session, and forgets the conversation.',
    takes: { param: sessionPathSchema },
    answer: { status: 204, description: 'Forgotten.' },
    run: ({ param }, c, directory) => directory.forget(tenantOf(c), param.session_id),
  }),
];
