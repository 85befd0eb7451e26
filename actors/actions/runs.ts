/** Runs that actions ask for: begun as turns, and answered exactly once as seen from outside, whatever comes twice. */
import {
  type EndStatus,
  endStatus,
  errorReply,
  type ReplyBody,
  turnReply,
} from '../../src/domain/action-replies.ts';
import type { Command, RunFields } from '../../src/domain/action-types.ts';
import { derivedId, itemTask, ownSession, replyId } from '../../src/domain/derived-ids.ts';
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { type ErrorCode, type ErrorData, RefusalError, refusal } from '../../src/domain/errors.ts';
import { type Overrides, overridesOf } from '../../src/domain/execution-params.ts';
import {
  DEFAULT_AGENT_ID,
  type TaskId,
  taskIdSchema,
  type UserId,
  userIdSchema,
} from '../../src/domain/ids.ts';
import type { TurnRecord, TurnRequest } from '../../src/domain/turn.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type { Relay } from '../../src/ports/outbox.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import type { Outgoing } from '../../src/ports/store.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import { NOT_ITS_FAULT } from '../../src/ports/transport.ts';
import type { Abortable } from './abortable.ts';
import type { Replies, Request } from './replies.ts';

/** The store is asked again after what it says, within these. */
const MIN_STORE_WAIT_MS = 50;
const MAX_STORE_WAIT_MS = 5_000;

/** A run, and who is told of it. */
export interface RunRequest {
  readonly request: Request;
  readonly say: TurnRequest;
  /** Whether the sender chose the session. */
  readonly sessionGiven: boolean;
  readonly conversationId: string | undefined;
  /** Place in a batch. */
  readonly index?: number;
  /** What its reply is named by (Replies). */
  readonly name: string;
}

export interface ActionRunDeps {
  readonly directory: Directory;
  readonly relay: Relay;
  readonly replies: Replies;
  /** Ends waits for what may go better: nothing begins any more. */
  readonly pauses: Abortable;
  /** Ends waits for runs: they are left to whoever takes the action next. */
  readonly runs: Abortable;
  readonly log: Log;
}

export type Begin = Executions['start'];

export interface ActionRuns {
  /** Resolves when the reply is kept or sent. Rejects where the action is to be given back. */
  answer(job: RunRequest, begin: Begin): Promise<EndStatus>;
  /** Does it once the store answers: it is asked again for as long as it does not. */
  insistently<T>(deed: () => Promise<T>): Promise<T>;
}

type RunStep =
  | { readonly type: 'done'; readonly status: EndStatus }
  /** In the session where the task is already. */
  | { readonly type: 'elsewhere'; readonly say: TurnRequest };

export function createActionRuns(deps: ActionRunDeps): ActionRuns {
  const { directory, relay, replies, pauses, log } = deps;

  async function insistently<T>(deed: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await deed();
      } catch (error) {
        if (!(error instanceof RefusalError) || error.data.code !== 'STORE_UNAVAILABLE') throw error;
        const waitMs = error.data.retry_after_ms ?? 0;
        await pauses.wait(Math.min(MAX_STORE_WAIT_MS, Math.max(MIN_STORE_WAIT_MS, waitMs)));
      }
    }
  }

  async function answer(job: RunRequest, begin: Begin): Promise<EndStatus> {
    let { say } = job;
    for (;;) {
      const step = await insistently(() => attempt({ ...job, say }, begin));
      if (step.type === 'done') return step.status;
      say = step.say;
    }
  }

  /** One offer of the run. Its reply is expected before it begins, so that it is kept with the turn's end. */
  async function attempt(job: RunRequest, begin: Begin): Promise<RunStep> {
    const { request, say } = job;
    const replyOf = (turn: TurnRecord) => replies.made(request, job.name, toldOf(job, turn), turn);
    const wanted = request.queue !== undefined || request.answers !== undefined;
    const make = (turn: TurnRecord): readonly Outgoing[] => [replyOf(turn)].filter((reply) => !!reply);
    const expectation = wanted ? relay.expect(say.caller.tenantId, say.taskId, make) : undefined;
    const isKept = (): boolean => expectation?.kept() === true;
    try {
      const begun = await begin(say, { awaitEnd: 'frame' });
      if (!begun.ok) return await refused(job, begun.error);
      const before = begun.accepted.deduplicated ? await answered(request, job.name) : null;
      if (before && (await again(request, before))) return await known(job);
      const end = await deps.runs.of(begun.ended).catch((error: unknown) => {
        if (isKept()) return null;
        throw error;
      });
      if (!end || isKept()) return end?.ok ? done(end.value) : await known(job);
      if (!end.ok) return await refused(job, end.error);
      if (before) await replies.send(request, toldOf(job, end.value), end.value);
      else await replies.keep(replyOf(end.value));
      return done(end.value);
    } finally {
      expectation?.release();
    }
  }

  /** What was answered before under that name. */
  async function answered(request: Request, name: string): Promise<Outgoing | null> {
    const before = await replies.answered(request);
    const { tenant_id: tenantId, action_id: actionId } = request.action;
    return before?.id === replyId(tenantId, actionId, name) ? before : null;
  }

  /** Answers alike. False where nobody waited for the answer then, and somebody does now. */
  async function again(request: Request, before: Outgoing): Promise<boolean> {
    if (!before.action && request.queue !== undefined) return false;
    await replies.again(request, before);
    return true;
  }

  async function known({ say }: RunRequest): Promise<RunStep> {
    const turn = await directory.turn(say.caller.tenantId, say.taskId);
    return turn.ok ? done(turn.value) : FAILED;
  }

  /** What is refused before it began, or has an end that is not known. */
  async function refused(job: RunRequest, error: ErrorData): Promise<RunStep> {
    const { request, say, sessionGiven } = job;
    const { tenantId } = say.caller;
    // A run that this node gives up because it goes is no failure: whoever takes the action next goes on.
    if (NOT_ITS_FAULT.has(error.code)) throw new RefusalError(error);
    if (error.code === 'INTERRUPTED' && pauses.signal.aborted) throw new RefusalError(refusal('DRAINING'));
    if (error.code === 'CONFLICT' && !sessionGiven) {
      const turn = await directory.turn(tenantId, say.taskId);
      if (turn.ok && turn.value.sessionId !== say.sessionId)
        return { type: 'elsewhere', say: { ...say, sessionId: turn.value.sessionId } };
    }
    const body = refusalOf(job, error);
    const about = { taskId: say.taskId, sessionId: say.sessionId };
    // What is kept is the answer for ever; what may go better is not.
    if (error.retryable || FOUND_AGAIN.has(error.code)) await replies.send(request, body, about);
    else {
      const name = `${job.name}.refused`;
      const before = await answered(request, name);
      if (!before || !(await again(request, before)))
        await replies.keep(replies.made(request, name, body, about));
    }
    if (request.queue === undefined) {
      log.info({ tenant_id: tenantId, task_id: say.taskId, code: error.code }, 'an action was refused');
      tellSockets(job, error);
    }
    return FAILED;
  }

  /** Where the sockets are the only readers they hear of a refusal, too: no turn will tell them. */
  function tellSockets({ request, say }: RunRequest, error: ErrorData): void {
    if (request.action.action_type !== 'chat.process') return;
    const frame = { type: 'error', data: { ...error }, taskId: say.taskId };
    directory.push(say.caller.tenantId, [say.sessionId], frame);
  }

  return { answer, insistently };
}

/** Refusals that come out the same without being remembered. */
const FOUND_AGAIN: ReadonlySet<ErrorCode> = new Set(['INVALID_REQUEST']);

const FAILED: RunStep = { type: 'done', status: 'failed' };

const done = ({ status }: TurnRecord): RunStep => {
  const ended = endStatus(status);
  return ended === 'queued' || ended === 'processing' ? FAILED : { type: 'done', status: ended };
};

const toldOf = ({ conversationId, index }: RunRequest, turn: TurnRecord): ReplyBody =>
  turnReply(turn, { conversationId: conversationId ?? turn.sessionId, index });

const refusalOf = ({ say, conversationId, index }: RunRequest, error: ErrorData): ReplyBody =>
  errorReply(error, {
    agentId: say.agentId ?? DEFAULT_AGENT_ID,
    sessionId: say.sessionId,
    conversationId: conversationId ?? say.sessionId,
    index,
  });

/** The run that an action asks for. */
export function runRequest(request: Request, { fields }: Extract<Command, { type: 'run' }>): RunRequest {
  const { stream = false, on_busy: onBusy = 'enqueue' } = fields;
  const job = jobOf(request, fields, fields.task_id ?? taskOf(request.action));
  const say: TurnRequest = {
    ...job.say,
    taskIdGiven: fields.task_id !== undefined || request.answers !== undefined,
    stream,
    onBusy,
  };
  return { ...job, say };
}

/** The runs of a batch's items, each with an answer of its own to be remembered by. */
export function itemRequests(request: Request, items: readonly RunFields[]): readonly RunRequest[] {
  const { action } = request;
  const taskId = taskOf(action);
  return items.map((fields, index) => {
    const own: Request = {
      ...request,
      answers: request.answers === undefined ? undefined : derivedId(action.action_id, String(index)),
    };
    const itemId = fields.task_id ?? itemTask(taskId, index);
    const job = jobOf(own, fields, itemId);
    return { ...job, request: { ...own, taskId: itemId }, index, name: `reply.${index}` };
  });
}

export const taskOf = ({ task_id, action_id }: DomainAction): TaskId =>
  task_id ?? taskIdSchema.parse(action_id);

function jobOf(request: Request, fields: RunFields, taskId: TaskId): RunRequest {
  const { action } = request;
  const sessionGiven = fields.session_id ?? fields.conversation_id;
  const overrides = within(overridesOf(fields), action.timeout);
  const say: TurnRequest = {
    caller: { tenantId: action.tenant_id, tier: action.tenant_tier, userId: userOf(action, fields) },
    sessionId: sessionGiven ?? ownSession(taskId),
    taskId,
    taskIdGiven: true,
    agentId: fields.agent_id,
    ...(fields.agent_version === undefined ? {} : { agentVersion: fields.agent_version }),
    message: fields.input,
    context: fields.user_info ? { ...fields.context, user_info: fields.user_info } : fields.context,
    // Nobody reads along; the end has the whole text.
    stream: false,
    onBusy: 'enqueue',
    requestId: action.trace_id,
    ...(overrides === undefined ? {} : { overrides }),
    resumable: true,
    ...(sessionGiven === undefined ? { ephemeral: true } : {}),
  };
  return {
    request,
    say,
    sessionGiven: sessionGiven !== undefined,
    conversationId: fields.conversation_id,
    name: 'reply',
  };
}

/** Who waits at most that long, in seconds, has nothing of a run that takes longer. */
function within(overrides: Overrides | undefined, timeoutS: number | undefined): Overrides | undefined {
  if (timeoutS === undefined) return overrides;
  const ms = Math.ceil(timeoutS * 1000);
  return { ...overrides, maxTimeMs: Math.min(ms, overrides?.maxTimeMs ?? ms) };
}

/** The envelope's user, or the one that the sender tells of, where that is an id. */
const userOf = ({ user_id }: DomainAction, { user_info: info }: RunFields): UserId | undefined =>
  user_id ?? userIdSchema.safeParse(info?.user_id ?? info?.id).data;
