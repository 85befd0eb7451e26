/** The execution routes: agents run outside a chat, one by one or in batches (PROTOCOL 3). */

import { createRoute, type OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import { overridesOf } from '../../src/domain/execution-params.ts';
import type { TurnRequest } from '../../src/domain/turn.ts';
import { batchSchema, executionBody, executionSchema } from '../../src/domain/turn-schemas.ts';
import type { Executions, ItemRequest } from '../../src/ports/executions.ts';
import type { HttpDeps } from './deps.ts';
import { failure, type HttpEnv, refuse } from './errors.ts';
import {
  batchAcceptedSchema,
  batchOrderSchema,
  batchPathSchema,
  type ExecutionItem,
  executionAcceptedSchema,
  executionCancelledSchema,
  executionOrderSchema,
  executionPathSchema,
} from './execution-schemas.ts';
import { jsonBody, needs } from './gate.ts';

/** Adds the execution routes. They need the scope `chat`; every id is looked up inside the caller's tenant. */
export function addExecutionRoutes(app: OpenAPIHono<HttpEnv>, deps: HttpDeps, executions: Executions): void {
  const { directory } = deps;
  const { batches } = executions;
  const chat = needs(deps.access, 'chat');
  const shared = { security: [{ bearer: [] }], tags: ['executions'] };

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/executions',
      summary: 'Runs an agent on an input; a missing session_id gives the execution a session of its own.',
      description:
        'An execution is a turn of its session: the same limits, status and cancelling. tools_config and ' +
        'execution_params only lower what agent and tier allow. With wait: true the answer is the finished ' +
        'execution, also where it failed; it goes on if the client leaves. The finished execution is posted to ' +
        'callback_url, up to five times and only while this process lives; a repeated request with the same task_id ' +
        'asks for it again.',
      middleware: [chat, jsonBody],
      request: {
        body: { required: true, content: { 'application/json': { schema: executionOrderSchema } } },
      },
      responses: {
        200: {
          description: 'How it ended (wait: true).',
          content: { 'application/json': { schema: executionSchema } },
        },
        202: {
          description: 'Accepted.',
          content: { 'application/json': { schema: executionAcceptedSchema } },
        },
        default: failure,
      },
    }),
    async (c) => {
      const { wait, ...item } = c.req.valid('json');
      const problem = callbackProblem(executions, [item], () => 'callback_url');
      if (problem) return refuse(c, problem);
      const { request, callbackUrl } = await orderOf(c, deps, executions, item);
      const begun = await executions.start(request, { awaitEnd: wait ? 'record' : 'none', callbackUrl });
      if (!begun.ok) return refuse(c, begun.error);
      if (wait) {
        const end = await begun.ended;
        return end.ok ? c.json(executionBody(end.value), 200) : refuse(c, end.error);
      }
      const { taskId, sessionId, accepted } = begun;
      const { status, deduplicated } = accepted;
      const answer = { execution_id: taskId, task_id: taskId, session_id: sessionId, status };
      return c.json(deduplicated ? { ...answer, deduplicated } : answer, 202);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/executions/{execution_id}',
      summary: 'How an execution stands.',
      middleware: chat,
      request: { params: executionPathSchema },
      responses: {
        200: {
          description: 'How the execution stands.',
          content: { 'application/json': { schema: executionSchema } },
        },
        default: failure,
      },
    }),
    async (c) => {
      const turn = await directory.turn(c.get('caller').tenantId, c.req.valid('param').execution_id);
      return turn.ok ? c.json(executionBody(turn.value), 200) : refuse(c, turn.error);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/executions/{execution_id}/cancel',
      summary: 'Cancels an execution; one that has ended answers its status. Takes no body.',
      middleware: chat,
      request: { params: executionPathSchema },
      responses: {
        200: {
          description: 'Cancelled, or ended before.',
          content: { 'application/json': { schema: executionCancelledSchema } },
        },
        default: failure,
      },
    }),
    async (c) => {
      const { execution_id } = c.req.valid('param');
      const reply = await directory.cancel(c.get('caller').tenantId, execution_id);
      if (!reply.ok) return refuse(c, reply.error);
      const { taskId, status, abortMs } = reply;
      return c.json({ execution_id: taskId, task_id: taskId, status, abort_ms: Math.ceil(abortMs) }, 200);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'post',
      path: '/api/executions/batch',
      summary: 'Runs up to 100 executions, `concurrency` of them at a time.',
      description:
        'Never more at a time than the tier runs at once. An item that a limit of the moment refuses is tried again ' +
        'after retry_after_ms; other refusals fail it. Batches are kept in memory: they end with the process, and ' +
        'the oldest finished ones are forgotten first.',
      middleware: [chat, jsonBody],
      request: { body: { required: true, content: { 'application/json': { schema: batchOrderSchema } } } },
      responses: {
        202: { description: 'Accepted.', content: { 'application/json': { schema: batchAcceptedSchema } } },
        default: failure,
      },
    }),
    async (c) => {
      const { items, concurrency } = c.req.valid('json');
      const problem = callbackProblem(executions, items, (index) => `items.${index}.callback_url`);
      if (problem) return refuse(c, problem);
      const { tenantId, tier } = c.get('caller');
      const most = await executions.atOnce(tenantId, tier).catch((error: unknown) => {
        deps.log.warn({ err: error, tenant_id: tenantId }, "the tenant's tier could not be read");
        return null;
      });
      if (most === null) return refuse(c, refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }));
      const orders = await Promise.all(items.map((item) => orderOf(c, deps, executions, item)));
      const started = batches.start(tenantId, orders, Math.min(concurrency, most));
      if (!started.ok) return refuse(c, started.error);
      return c.json({ batch_id: started.value.batch_id, items: started.value.total }, 202);
    },
  );

  app.openapi(
    createRoute({
      ...shared,
      method: 'get',
      path: '/api/executions/batch/{batch_id}',
      summary: 'How a batch stands, item by item.',
      middleware: chat,
      request: { params: batchPathSchema },
      responses: {
        200: { description: 'The batch.', content: { 'application/json': { schema: batchSchema } } },
        default: failure,
      },
    }),
    (c) => {
      const batch = batches.find(c.get('caller').tenantId, c.req.valid('param').batch_id);
      return batch
        ? c.json(batch, 200)
        : refuse(c, refusal('NOT_FOUND', { message: 'There is no such batch.' }));
    },
  );
}

/** What the item asks for, as the directory is told it: of a repeated one, in the session where the first is. */
async function orderOf(
  c: Context<HttpEnv>,
  deps: HttpDeps,
  executions: Executions,
  item: ExecutionItem,
): Promise<ItemRequest> {
  const caller = c.get('caller');
  const given = item.task_id ?? item.execution_id;
  const overrides = overridesOf(item);
  const known =
    given !== undefined && item.session_id === undefined
      ? await deps.directory.turn(caller.tenantId, given)
      : undefined;
  const request: TurnRequest = {
    caller,
    sessionId: item.session_id ?? (known?.ok ? known.value.sessionId : executions.newSessionId()),
    taskId: given ?? deps.newTaskId(),
    taskIdGiven: given !== undefined,
    agentId: item.agent_id,
    ...(item.agent_version === undefined ? {} : { agentVersion: item.agent_version }),
    message: item.input,
    context: item.context,
    // Nobody reads along; the end has the whole text.
    stream: false,
    onBusy: 'enqueue',
    requestId: c.get('requestId'),
    ...(overrides === undefined ? {} : { overrides }),
    ...(item.session_id === undefined && !known?.ok ? { ephemeral: true } : {}),
    // Its turn may be over long ago, or have been left behind by a node that died.
    ...(given === undefined ? {} : { resumable: true }),
  };
  return { request, callbackUrl: item.callback_url };
}

/** The refusal of callback addresses that will not do, or null. */
function callbackProblem(
  { callbackProblem: problemOf }: Executions,
  items: readonly ExecutionItem[],
  field: (index: number) => string,
): ErrorData | null {
  const details = items.flatMap(({ callback_url: url }, index) => {
    const message = url === undefined ? null : problemOf(url);
    return message === null ? [] : [{ field: field(index), message }];
  });
  const [first] = details;
  return first ? refusal('INVALID_REQUEST', { message: `${first.field}: ${first.message}`, details }) : null;
}
