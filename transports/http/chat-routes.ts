/** The chat routes: say something, ask how a turn stands, cancel it (PROTOCOL 3). */
import type { Context } from 'hono';
import { mapReply, refusal } from '../../src/domain/errors.ts';
import type { SessionId, TaskId } from '../../src/domain/ids.ts';
import { isEndStatus, type TurnRequest } from '../../src/domain/turn.ts';
import {
  acceptedBody,
  acceptedSchema,
  cancelledBody,
  cancelledSchema,
  requestOf,
  sendBodySchema,
  sendHeadersSchema,
  sendQuerySchema,
  taskBodySchema,
  taskPathSchema,
  turnBody,
  turnFrameSchema,
  turnSchema,
} from '../../src/domain/turn-schemas.ts';
import type { HttpDeps } from './deps.ts';
import type { HttpEnv } from './errors.ts';
import { tenantOf } from './gate.ts';
import { wantsEventStream } from './media-types.ts';
import { type Route, routesOf } from './route.ts';
import { type StreamWishes, sayAndStream } from './turn-stream.ts';

const route = routesOf<HttpDeps>('chat');
const turnAnswer = { status: 200, description: 'How the turn stands.', schema: turnSchema } as const;

/** They need the scope `chat`; every id is looked up inside the caller's tenant. */
export const chatRoutes: readonly Route<HttpDeps>[] = [
  route({
    method: 'post',
    path: '/api/chat/send',
    guard: 'chat',
    summary: 'Says something in a session; a missing session_id opens a new one.',
    description:
      'With Accept: text/event-stream the answer is the turn itself, one frame an event, until its end. ' +
      'A resend of a task_id hears the acceptance again, what the turn still brings, and its end; with Last-Event-ID ' +
      'it hears the frames after that one, where the session still has them.',
    takes: { query: sendQuerySchema, header: sendHeadersSchema, json: sendBodySchema },
    answer: { status: 202, description: 'Accepted.', schema: acceptedSchema },
    otherAnswers: {
      200: {
        description: 'The turn, as server-sent events.',
        content: { 'text/event-stream': { schema: turnFrameSchema } },
      },
    },
    async run({ query, header, json }, c, deps) {
      const from = {
        caller: c.get('caller'),
        sessionId: json.session_id ?? header['x-session-id'] ?? (await sessionFor(deps, c, json.task_id)),
        agentId: header['x-agent-id'],
        requestId: c.get('requestId'),
      };
      const request = requestOf(json, from, deps.newTaskId);
      if (!wantsEventStream(c.req.header('accept'))) return send(deps, request);
      const after = header['last-event-id'];
      if (after !== undefined && json.task_id === undefined) return { ok: false, error: WHICH_TURN };
      return sendStreaming(c, deps, request, { reasoning: query.reasoning ?? json.reasoning, after });
    },
  }),
  route({
    method: 'post',
    path: '/api/chat/status',
    guard: 'chat',
    summary: 'How a turn stands.',
    takes: { json: taskBodySchema },
    answer: turnAnswer,
    run: async ({ json }, c, { directory }) =>
      mapReply(await directory.turn(tenantOf(c), json.task_id), turnBody),
  }),
  route({
    method: 'get',
    path: '/api/chat/tasks/{task_id}',
    guard: 'chat',
    summary: 'How a turn stands.',
    takes: { param: taskPathSchema },
    answer: turnAnswer,
    run: async ({ param }, c, { directory }) =>
      mapReply(await directory.turn(tenantOf(c), param.task_id), turnBody),
  }),
  route({
    method: 'post',
    path: '/api/chat/cancel',
    guard: 'chat',
    summary: 'Cancels a turn; one that has ended answers its status.',
    takes: { json: taskBodySchema },
    answer: { status: 200, description: 'Cancelled, or ended before.', schema: cancelledSchema },
    async run({ json }, c, { directory }) {
      const reply = await directory.cancel(tenantOf(c), json.task_id);
      return reply.ok ? { ok: true, value: cancelledBody(reply) } : reply;
    },
  }),
];

/** The session of a message that names none: that of its turn where it is a resend, else a new one. */
async function sessionFor(
  deps: HttpDeps,
  c: Context<HttpEnv>,
  taskId: TaskId | undefined,
): Promise<SessionId> {
  const known = taskId && (await deps.directory.turn(tenantOf(c), taskId));
  return known?.ok ? known.value.sessionId : deps.newSessionId();
}

async function send({ directory }: HttpDeps, request: TurnRequest) {
  const reply = await directory.say(request);
  if (!reply.ok) return reply;
  const { taskId, accepted } = reply;
  // A resend may name another session, or none; the turn is where it was.
  const turn = accepted.deduplicated ? await directory.turn(request.caller.tenantId, taskId) : undefined;
  const sessionId = turn?.ok ? turn.value.sessionId : request.sessionId;
  const status = turn?.ok && isEndStatus(turn.value.status) ? turn.value.status : accepted.status;
  return {
    ok: true as const,
    value: acceptedBody({ taskId, sessionId, accepted: { ...accepted, status } }),
  };
}

const WHICH_TURN = refusal('INVALID_REQUEST', {
  message: 'task_id: must be that of the turn whose stream Last-Event-ID goes on with',
});

async function sendStreaming(
  c: Context<HttpEnv>,
  deps: HttpDeps,
  request: TurnRequest,
  wishes: StreamWishes,
) {
  const said = await sayAndStream(deps, request, { ...wishes, account: c.env.account });
  if (!said.ok) return said;
  c.header('Content-Type', 'text/event-stream; charset=utf-8');
  c.header('Cache-Control', 'no-cache, no-transform');
  // nginx would collect the stream otherwise.
  c.header('X-Accel-Buffering', 'no');
  c.header('X-Session-ID', said.sessionId);
  c.header('X-Task-ID', request.taskId);
  return c.body(said.body, 200);
}
