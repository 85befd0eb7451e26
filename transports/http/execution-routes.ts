/** The execution routes: agents run outside a chat, one by one or in batches (PROTOCOL 3). */
import { z } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { defined } from '../../src/domain/defined.ts';
import { mapReply, type Reply, refusal } from '../../src/domain/errors.ts';
import {
  DEFAULT_BATCH_CONCURRENCY,
  executionParamsSchema,
  MAX_BATCH_CONCURRENCY,
  MAX_BATCH_ITEMS,
  overridesOf,
  toolsConfigSchema,
} from '../../src/domain/execution-params.ts';
import { sayFields } from '../../src/domain/frames.ts';
import { agentIdSchema, ID_PATTERN, sessionIdSchema, taskIdSchema } from '../../src/domain/ids.ts';
import { imageUrls } from '../../src/domain/images.ts';
import { boundedArray, requestObject } from '../../src/domain/request-object.ts';
import type { TurnRequest } from '../../src/domain/turn.ts';
import {
  acceptedBody,
  acceptedSchema,
  batchSchema,
  cancelledBody,
  cancelledSchema,
  executionBody,
  executionSchema,
} from '../../src/domain/turn-schemas.ts';
import type { ItemRequest } from '../../src/ports/batches.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type { HttpDeps } from './deps.ts';
import type { HttpEnv } from './errors.ts';
import { tenantOf } from './gate.ts';
import { type Route, routesOf } from './route.ts';

// --- What the routes take and answer ---------------------------------------------------------------------------

const MAX_URL = 2_048;

const executionFields = {
  agent_id: agentIdSchema,
  /** Pins a version of the agent. */
  agent_version: sayFields.agent_version,
  input: sayFields.message,
  /** Runs in this conversation, after what runs there; absent: in a session of its own. */
  session_id: sessionIdSchema.optional(),
  /** The client's choice makes a repeated request idempotent; `execution_id` is another name for it. */
  task_id: taskIdSchema.optional(),
  execution_id: taskIdSchema.optional(),
  context: sayFields.context,
  tools_config: toolsConfigSchema.optional(),
  execution_params: executionParamsSchema.optional(),
  response_format: sayFields.response_format,
  images: sayFields.images,
  callback_url: z.string().min(1).max(MAX_URL).optional(),
};

type Ids = { readonly task_id?: string | undefined; readonly execution_id?: string | undefined };
const oneId = ({ task_id, execution_id }: Ids): boolean =>
  task_id === undefined || execution_id === undefined || task_id === execution_id;
const ONE_ID = { message: 'must be the task_id where both are given', path: ['execution_id'] };

const executionItemSchema = requestObject(executionFields).refine(oneId, ONE_ID).openapi('ExecutionItem');
type ExecutionItem = z.infer<typeof executionItemSchema>;

const executionRequestSchema = requestObject({ ...executionFields, wait: z.boolean().default(false) })
  .refine(oneId, ONE_ID)
  .openapi('ExecutionRequest');

/** Of the ids that clients chose, none stands twice. */
function distinct(items: readonly ExecutionItem[]): boolean {
  const ids = items.flatMap(({ task_id, execution_id }) => task_id ?? execution_id ?? []);
  return new Set(ids).size === ids.length;
}

const batchRequestSchema = requestObject({
  items: boundedArray(executionItemSchema, MAX_BATCH_ITEMS, 1).refine(distinct, 'must have ids of their own'),
  concurrency: z.number().int().min(1).max(MAX_BATCH_CONCURRENCY).default(DEFAULT_BATCH_CONCURRENCY),
}).openapi('ExecutionBatchRequest');

const idPath = z.string().regex(ID_PATTERN);
const executionPathSchema = z.object({ execution_id: taskIdSchema });
const batchPathSchema = z.object({ batch_id: idPath });

const executionAcceptedSchema = acceptedSchema
  .extend({ execution_id: taskIdSchema })
  .openapi('ExecutionAccepted');
const executionCancelledSchema = cancelledSchema
  .extend({ execution_id: taskIdSchema })
  .openapi('ExecutionCancelled');

const batchAcceptedSchema = z
  .object({ batch_id: idPath, items: z.number().int().positive() })
  .openapi('ExecutionBatchAccepted');

// --- The routes ------------------------------------------------------------------------------------------------

type Served = HttpDeps & { readonly executions: Executions };

const route = routesOf<Served>('executions');

/** They need the scope `chat`; every id is looked up inside the caller's tenant. */
export const executionRoutes: readonly Route<Served>[] = [
  route({
    method: 'post',
    path: '/api/executions',
    guard: 'chat',
    summary: 'Runs an agent on an input; a missing session_id gives the execution a session of its own.',
    description:
      'An execution is a turn of its session: the same limits, status and cancelling. tools_config and ' +
      'execution_params only lower what agent and tier allow. With wait: true the answer is the finished ' +
      'execution, also where it failed; it goes on if the client leaves. The finished execution is posted to ' +
      'callback_url, up to five times, whatever becomes of the node meanwhile; a repeated request with the same task_id ' +
      'asks for it again.',
    takes: { json: executionRequestSchema },
    answer: { status: 202, description: 'Accepted.', schema: executionAcceptedSchema },
    otherAnswers: {
      200: {
        description: 'How it ended (wait: true).',
        content: { 'application/json': { schema: executionSchema } },
      },
    },
    async run({ json: { wait, ...item } }, c, served) {
      const refused = callbackRefusal(served.executions, [item], () => 'callback_url');
      if (refused) return refused;
      const { request, callbackUrl } = await itemRequest(c, served, item);
      const options = { awaitEnd: wait ? ('record' as const) : ('none' as const), callbackUrl };
      const run = await served.executions.start(request, options);
      if (!run.ok) return run;
      if (!wait) return { ok: true, value: { execution_id: run.taskId, ...acceptedBody(run) } };
      const end = await run.ended;
      return end.ok ? c.json(executionBody(end.value), 200) : end;
    },
  }),
  route({
    method: 'get',
    path: '/api/executions/{execution_id}',
    guard: 'chat',
    summary: 'How an execution stands.',
    takes: { param: executionPathSchema },
    answer: { status: 200, description: 'How the execution stands.', schema: executionSchema },
    run: async ({ param }, c, { directory }) =>
      mapReply(await directory.turn(tenantOf(c), param.execution_id), executionBody),
  }),
  route({
    method: 'post',
    path: '/api/executions/{execution_id}/cancel',
    guard: 'chat',
    summary: 'Cancels an execution; one that has ended answers its status. Takes no body.',
    takes: { param: executionPathSchema },
    answer: { status: 200, description: 'Cancelled, or ended before.', schema: executionCancelledSchema },
    async run({ param }, c, { directory }) {
      const reply = await directory.cancel(tenantOf(c), param.execution_id);
      if (!reply.ok) return reply;
      return { ok: true, value: { execution_id: reply.taskId, ...cancelledBody(reply) } };
    },
  }),
  route({
    method: 'post',
    path: '/api/executions/batch',
    guard: 'chat',
    summary: 'Runs up to 100 executions, `concurrency` of them at a time.',
    description:
      'Never more at a time than the tier runs at once. An item that a limit of the moment refuses is tried again ' +
      'after retry_after_ms; other refusals fail it. A batch outlives its node: another, or the next process, goes on ' +
      'with it. It can be asked for until seven days after it was made.',
    takes: { json: batchRequestSchema },
    answer: { status: 202, description: 'Accepted.', schema: batchAcceptedSchema },
    async run({ json: { items, concurrency } }, c, served) {
      const refused = callbackRefusal(served.executions, items, (index) => `items.${index}.callback_url`);
      if (refused) return refused;
      const most = await slotsOf(c, served);
      if (!most.ok) return most;
      const requests = await Promise.all(items.map((item) => itemRequest(c, served, item)));
      const started = await served.executions.batches.start(
        tenantOf(c),
        requests,
        Math.min(concurrency, most.value),
      );
      return mapReply(started, ({ batch_id, total }) => ({ batch_id, items: total }));
    },
  }),
  route({
    method: 'get',
    path: '/api/executions/batch/{batch_id}',
    guard: 'chat',
    summary: 'How a batch stands, item by item.',
    takes: { param: batchPathSchema },
    answer: { status: 200, description: 'The batch.', schema: batchSchema },
    run: ({ param }, c, { executions }) => executions.batches.find(tenantOf(c), param.batch_id),
  }),
];

/** How many executions the tenant may have at once. */
async function slotsOf(c: Context<HttpEnv>, { executions, log }: Served): Promise<Reply<number>> {
  const { tenantId, tier } = c.get('caller');
  try {
    return { ok: true, value: await executions.atOnce(tenantId, tier) };
  } catch (error) {
    log.warn({ err: error, tenant_id: tenantId }, "the tenant's tier could not be read");
    return { ok: false, error: refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }) };
  }
}

/** The item as it is said to the directory: a repeated one in the session where the first is. */
async function itemRequest(c: Context<HttpEnv>, served: Served, item: ExecutionItem): Promise<ItemRequest> {
  const caller = c.get('caller');
  const given = item.task_id ?? item.execution_id;
  const known =
    given !== undefined && item.session_id === undefined
      ? await served.directory.turn(caller.tenantId, given)
      : undefined;
  const hasSession = item.session_id !== undefined || known?.ok === true;
  const request: TurnRequest = {
    caller,
    sessionId: item.session_id ?? (known?.ok ? known.value.sessionId : served.executions.newSessionId()),
    taskId: given ?? served.newTaskId(),
    taskIdGiven: given !== undefined,
    agentId: item.agent_id,
    message: item.input,
    context: item.context,
    // Nobody reads along; the end has the whole text.
    stream: false,
    onBusy: 'enqueue',
    requestId: c.get('requestId'),
    ...defined({
      agentVersion: item.agent_version,
      overrides: overridesOf(item),
      responseFormat: item.response_format,
      images: imageUrls(item.images),
      ephemeral: hasSession ? undefined : (true as const),
      // Its turn may be over long ago, or have been left behind by a node that died.
      resumable: given === undefined ? undefined : (true as const),
    }),
  };
  return { request, callbackUrl: item.callback_url };
}

/** The refusal of callback addresses that will not do. */
function callbackRefusal(
  { callbackProblem }: Executions,
  items: readonly ExecutionItem[],
  field: (index: number) => string,
): Extract<Reply<never>, { ok: false }> | undefined {
  const details = items.flatMap(({ callback_url: url }, index) => {
    const message = url === undefined ? null : callbackProblem(url);
    return message === null ? [] : [{ field: field(index), message }];
  });
  const [first] = details;
  if (!first) return undefined;
  const message = `${first.field}: ${first.message}`;
  return { ok: false, error: refusal('INVALID_REQUEST', { message, details }) };
}
