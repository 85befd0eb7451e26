/** Runs that actions ask for: started as turns, and answered exactly once as seen from outside, however often they come. */
import {
  errorReply,
  type ReplyBody,
  type RunStatus,
  runStatus,
  turnReply,
} from '../../src/domain/action-replies.ts';
import type { CommandOf, RunFields } from '../../src/domain/action-types.ts';
import { defined } from '../../src/domain/defined.ts';
import { derivedId, itemTask, ownSession } from '../../src/domain/derived-ids.ts';
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { type ErrorCode, type ErrorData, RefusalError, refusal } from '../../src/domain/errors.ts';
import { type Overrides, overridesOf } from '../../src/domain/execution-params.ts';
import {
  DEFAULT_AGENT_ID,
  type SessionId,
  type TaskId,
  taskIdSchema,
  type UserId,
  userIdSchema,
} from '../../src/domain/ids.ts';
import { imageUrls } from '../../src/domain/images.ts';
import type { TurnRecord, TurnRequest } from '../../src/domain/turn.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type { Relay } from '../../src/ports/outbox.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import type { Log, Refusals } from '../../src/ports/telemetry.ts';
import { NOT_ITS_FAULT } from '../../src/ports/transport.ts';
import { type Abortable, onceStoreAnswers } from './abortable.ts';
import type { ActionRequest, Replies } from './replies.ts';

/** A run, and who is answered. */
export interface RunRequest {
  readonly request: ActionRequest;
  readonly turn: TurnRequest;
  /** Whether the sender chose the session. */
  readonly sessionGiven: boolean;
  readonly conversationId: SessionId | undefined;
  /** The reply has what the model thought. */
  readonly reasoning: boolean;
  /** Place in a batch. */
  readonly index?: number;
  /** Name of its reply. */
  readonly name: string;
}

interface ActionRunDeps {
  readonly directory: Directory;
  readonly relay: Relay;
  readonly replies: Replies;
  /** Waits for the store and for limits: once ended, nothing starts any more. */
  readonly pauses: Abortable;
  /** Waits for runs: once ended, they are left to whoever takes the action next. */
  readonly running: Abortable;
  readonly log: Log;
  readonly refusals: Refusals;
}

export type StartRun = Executions['start'];

/** Performs a run: resolves when its reply is stored or sent. Rejects where the action is to be requeued. */
export type PerformRun = (run: RunRequest, start: StartRun) => Promise<RunStatus>;

type RunStep =
  | { readonly type: 'done'; readonly status: RunStatus }
  /** To be started again, in the session where its task is already. */
  | { readonly type: 'elsewhere'; readonly turn: TurnRequest };

export function createActionRuns(deps: ActionRunDeps): PerformRun {
  const { directory, relay, replies, running } = deps;
  const refuse = createRunRefusals(deps);

  /** One start of the run. Its reply goes along as data, so that it is stored with the turn's end wherever that is. */
  async function attempt(run: RunRequest, start: StartRun): Promise<RunStep> {
    const { request, turn, name, conversationId, index, reasoning } = run;
    const spec = replies.spec(request, name, { conversationId, index, reasoning });
    const last = () => spec && relay.replied(turn.caller.tenantId, spec.id);
    const earlier = last();
    const isStored = (): boolean => last() !== earlier && last()?.state === 'stored';
    const started = await start(spec ? { ...turn, replies: [spec] } : turn, { awaitEnd: 'frame' });
    if (!started.ok) return refuse(run, started.error);
    const before = started.accepted.deduplicated ? await replies.stored(request, name) : null;
    // A reply that was stored just now, with the end, is on its way.
    if (before && !isStored() && (await replies.repeat(request, before))) return recorded(run);
    const end = await running.of(started.ended).catch((error: unknown) => {
      if (isStored()) return null;
      // This node goes, and whoever is given the action answers it: with the turn's end, or by running it again.
      if (spec && running.signal.aborted) relay.forgo(turn.caller.tenantId, spec.id);
      throw error;
    });
    // Of a turn that ended on another node nothing is known here: that node has stored its reply.
    const isElsewhere = started.replying === true && last() === earlier;
    if (!end || isStored()) return end?.ok ? done(end.value) : recorded(run);
    if (!end.ok) return refuse(run, end.error);
    if (isElsewhere) return done(end.value);
    if (before) await replies.send(request, replyOf(run, end.value), end.value);
    else await replies.store(replies.make(request, name, replyOf(run, end.value), end.value));
    return done(end.value);
  }

  /** How a run ended whose reply is on its way. */
  async function recorded({ turn }: RunRequest): Promise<RunStep> {
    const record = await directory.turn(turn.caller.tenantId, turn.taskId);
    return record.ok ? done(record.value) : FAILED;
  }

  return async function perform(run, start) {
    let { turn } = run;
    for (;;) {
      const step = await onceStoreAnswers(deps.pauses, () => attempt({ ...run, turn }, start));
      if (step.type === 'done') return step.status;
      turn = step.turn;
    }
  };
}

/** Answers runs that were refused before they started, or have an end that is not known. */
function createRunRefusals({ directory, replies, pauses, log, refusals }: ActionRunDeps) {
  /** Where the sockets of a session are the only readers, no turn tells them: they get a frame. */
  function pushRefusal({ request, turn }: RunRequest, error: ErrorData): void {
    if (request.action.action_type !== 'chat.process') return;
    const frame = { type: 'error', data: { ...error }, taskId: turn.taskId };
    directory.push(turn.caller.tenantId, [turn.sessionId], frame);
  }

  async function answer(run: RunRequest, error: ErrorData): Promise<void> {
    const { request, turn } = run;
    const body = refusalOf(run, error);
    const about = { taskId: turn.taskId, sessionId: turn.sessionId };
    // What is stored is the answer for ever; a refusal that may pass is not.
    if (error.retryable || FOUND_AGAIN.has(error.code)) return replies.send(request, body, about);
    const name = `${run.name}.refused`;
    const before = await replies.stored(request, name);
    if (!before || !(await replies.repeat(request, before)))
      await replies.store(replies.make(request, name, body, about));
  }

  return async function refuse(run: RunRequest, error: ErrorData): Promise<RunStep> {
    const { request, turn, sessionGiven } = run;
    const { tenantId } = turn.caller;
    // A run that this node gives up because it goes is no failure: whoever takes the action next goes on.
    if (NOT_ITS_FAULT.has(error.code)) throw new RefusalError(error);
    if (error.code === 'INTERRUPTED' && pauses.signal.aborted) throw new RefusalError(refusal('DRAINING'));
    if (error.code === 'CONFLICT' && !sessionGiven) {
      const known = await directory.turn(tenantId, turn.taskId);
      if (known.ok && known.value.sessionId !== turn.sessionId)
        return { type: 'elsewhere', turn: { ...turn, sessionId: known.value.sessionId } };
    }
    refusals.refused('redis', error, { tenant_id: tenantId, request_id: turn.requestId });
    await answer(run, error);
    if (request.queue === undefined) {
      log.info({ tenant_id: tenantId, task_id: turn.taskId, code: error.code }, 'an action was refused');
      pushRefusal(run, error);
    }
    return FAILED;
  };
}

/** Refusals that come out the same without being stored. */
const FOUND_AGAIN: ReadonlySet<ErrorCode> = new Set(['INVALID_REQUEST']);

const FAILED: RunStep = { type: 'done', status: 'failed' };

const done = (record: TurnRecord): RunStep => ({ type: 'done', status: runStatus(record) });

const replyOf = ({ conversationId, index, reasoning }: RunRequest, record: TurnRecord): ReplyBody =>
  turnReply(record, { conversation_id: conversationId, index, reasoning });

const refusalOf = ({ turn, conversationId, index }: RunRequest, error: ErrorData): ReplyBody =>
  errorReply(
    error,
    defined({
      agent_id: turn.agentId ?? DEFAULT_AGENT_ID,
      conversation_id: conversationId ?? turn.sessionId,
      session_id: turn.sessionId,
      index,
    }),
  );

// --- What is run -----------------------------------------------------------------------------------------------

/** The run that an action asks for. */
export function runRequest(request: ActionRequest, { fields }: CommandOf<'run'>): RunRequest {
  const { stream = false, on_busy: onBusy = 'enqueue', task_id: given } = fields;
  const run = runOf(request, fields, given ?? taskOf(request.action));
  const taskIdGiven = given !== undefined || request.answers !== undefined;
  return { ...run, turn: { ...run.turn, taskIdGiven, stream, onBusy } };
}

/** The runs of a batch's items, each with an answer of its own. */
export function itemRequests(request: ActionRequest, items: readonly RunFields[]): readonly RunRequest[] {
  const { action } = request;
  const taskId = taskOf(action);
  return items.map((fields, index) => {
    const answers = request.answers === undefined ? undefined : derivedId(action.action_id, String(index));
    const itemId = fields.task_id ?? itemTask(taskId, index);
    const run = runOf({ ...request, answers, taskId: itemId }, fields, itemId);
    return { ...run, index, name: `reply.${index}` };
  });
}

export const taskOf = ({ task_id, action_id }: DomainAction): TaskId =>
  task_id ?? taskIdSchema.parse(action_id);

function runOf(request: ActionRequest, fields: RunFields, taskId: TaskId): RunRequest {
  const { action } = request;
  const sessionGiven = fields.session_id ?? fields.conversation_id;
  const turn: TurnRequest = {
    caller: { tenantId: action.tenant_id, tier: action.tenant_tier, userId: userOf(action, fields) },
    sessionId: sessionGiven ?? ownSession(taskId),
    taskId,
    taskIdGiven: true,
    agentId: fields.agent_id,
    message: fields.input,
    context: fields.user_info ? { ...fields.context, user_info: fields.user_info } : fields.context,
    // Nobody reads along; the end has the whole text.
    stream: false,
    onBusy: 'enqueue',
    requestId: action.trace_id,
    resumable: true,
    ...defined({
      agentVersion: fields.agent_version,
      overrides: within(overridesOf(fields), action.timeout),
      responseFormat: fields.response_format,
      images: imageUrls(fields.images),
      ephemeral: sessionGiven === undefined ? (true as const) : undefined,
    }),
  };
  return {
    request,
    turn,
    sessionGiven: sessionGiven !== undefined,
    conversationId: fields.conversation_id,
    reasoning: fields.reasoning ?? false,
    name: 'reply',
  };
}

/** Whoever waits at most that long, in seconds, has nothing of a run that takes longer. */
function within(overrides: Overrides | undefined, timeoutS: number | undefined): Overrides | undefined {
  if (timeoutS === undefined) return overrides;
  const ms = Math.ceil(timeoutS * 1000);
  return { ...overrides, maxTimeMs: Math.min(ms, overrides?.maxTimeMs ?? ms) };
}

/** The envelope's user, or the one that the sender describes, where that is an id. */
const userOf = ({ user_id }: DomainAction, { user_info: info }: RunFields): UserId | undefined =>
  user_id ?? userIdSchema.safeParse(info?.user_id ?? info?.id).data;
