/** The chat routes: say something, ask how a turn stands, cancel it (PROTOCOL 3). */

import { createRoute, type OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import type { SessionId, TaskId } from '../../src/domain/ids.ts';
import type { TurnRequest } from '../../src/domain/turn.ts';
import {
  acceptedSchema,
  cancelledSchema,
  sendBodySchema,
  sendHeadersSchema,
  taskBodySchema,
  taskPathSchema,
  turnBody,
  turnFrameSchema,
  turnSchema,
} from '../../src/domain/turn-schemas.ts';
import type { HttpDeps } from './deps.ts';
import { failure, type HttpEnv, refuse } from './errors.ts';
import { jsonBody, needs } from './gate.ts';
import { sayAndStream } from './turn-stream.ts';

/** Adds the chat routes. They need the scope `chat`; every id is looked up inside the caller's tenant. */
export function addChatRoutes(app: OpenAPIHono<HttpEnv>, deps: HttpDeps): void {
  const { directory } = deps;
  const chat = needs(deps.access, 'chat');
  const shared = { security: [{ bearer: [] }], tags: ['chat'] };
  const taskBody = { body: { required: true, content: { 'application/json': { schema: taskBodySchema } } } };
  const turnAnswer = {
    200: { description: 'How the turn stands.', content: { 'application/json': { schema: turnSchema } } },
    default: failure,
  } as const;

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/chat/send',
      summary: 'Says something in a session; a missing session_id opens a new one.',
      description:
        'With Accept: text/event-stream the answer is the turn itself, one frame an event, until its end. ' +
        'A resend of a task_id hears the acceptance again, what the turn still brings, and its end.',
      middleware: [chat, jsonBody],
      request: {
        headers: sendHeadersSchema,
        body: { required: true, content: { 'application/json': { schema: sendBodySchema } } },
      },
      responses: {
        200: {
          description: 'The turn, as server-sent events.',
          content: { 'text/event-stream': { schema: turnFrameSchema } },
        },
        202: { description: 'Accepted.', content: { 'application/json': { schema: acceptedSchema } } },
        default: failure,
      },
    }),
    async (c) => {
      const body = c.req.valid('json');
      const named = c.req.valid('header');
      const request: TurnRequest = {
        caller: c.get('caller'),
        sessionId: body.session_id ?? named['x-session-id'] ?? (await sessionFor(deps, c, body.task_id)),
        taskId: body.task_id ?? deps.newTaskId(),
        taskIdGiven: body.task_id !== undefined,
        agentId: body.agent_id ?? named['x-agent-id'],
        ...(body.agent_version === undefined ? {} : { agentVersion: body.agent_version }),
        message: body.message,
        context: body.context,
        stream: body.stream,
        onBusy: body.on_busy,
        requestId: c.get('requestId'),
      };
      return /\btext\/event-stream\b/i.test(c.req.header('accept') ?? '')
        ? sendStreaming(c, deps, request)
        : send(c, deps, request);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/chat/status',
      summary: 'How a turn stands.',
      middleware: [chat, jsonBody],
      request: taskBody,
      responses: turnAnswer,
    }),
    async (c) => {
      const turn = await directory.turn(c.get('caller').tenantId, c.req.valid('json').task_id);
      return turn.ok ? c.json(turnBody(turn.value), 200) : refuse(c, turn.error);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/chat/tasks/{task_id}',
      summary: 'How a turn stands.',
      middleware: chat,
      request: { params: taskPathSchema },
      responses: turnAnswer,
    }),
    async (c) => {
      const turn = await directory.turn(c.get('caller').tenantId, c.req.valid('param').task_id);
      return turn.ok ? c.json(turnBody(turn.value), 200) : refuse(c, turn.error);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/chat/cancel',
      summary: 'Cancels a turn; one that has ended answers its status.',
      middleware: [chat, jsonBody],
      request: taskBody,
      responses: {
        200: {
          description: 'Cancelled, or ended before.',
          content: { 'application/json': { schema: cancelledSchema } },
        },
        default: failure,
      },
    }),
    async (c) => {
      const reply = await directory.cancel(c.get('caller').tenantId, c.req.valid('json').task_id);
      if (!reply.ok) return refuse(c, reply.error);
      return c.json({ task_id: reply.taskId, status: reply.status, abort_ms: Math.ceil(reply.abortMs) }, 200);
    },
  );
}

/** The session of a message that names none: that of its turn where it is a resend, else a new one. */
async function sessionFor(
  deps: HttpDeps,
  c: Context<HttpEnv>,
  taskId: TaskId | undefined,
): Promise<SessionId> {
  const known = taskId && (await deps.directory.turn(c.get('caller').tenantId, taskId));
  return known?.ok ? known.value.sessionId : deps.newSessionId();
}

async function send(c: Context<HttpEnv>, deps: HttpDeps, request: TurnRequest) {
  const reply = await deps.directory.say(request);
  if (!reply.ok) return refuse(c, reply.error);
  const { status, deduplicated } = reply.accepted;
  let sessionId = request.sessionId;
  if (deduplicated) {
    // The resend may name another session, or none; the turn is where it was.
    const turn = await deps.directory.turn(request.caller.tenantId, reply.taskId);
    if (turn.ok) sessionId = turn.value.sessionId;
  }
  const answer = { task_id: reply.taskId, session_id: sessionId, status };
  return c.json(deduplicated ? { ...answer, deduplicated } : answer, 202);
}

async function sendStreaming(c: Context<HttpEnv>, deps: HttpDeps, request: TurnRequest) {
  const said = await sayAndStream(deps, request);
  if (!said.ok) return refuse(c, said.error);
  c.header('Content-Type', 'text/event-stream; charset=utf-8');
  c.header('Cache-Control', 'no-cache, no-transform');
  // nginx would collect the stream otherwise.
  c.header('X-Accel-Buffering', 'no');
  c.header('X-Session-ID', said.sessionId);
  c.header('X-Task-ID', request.taskId);
  return c.body(said.body, 200);
}
