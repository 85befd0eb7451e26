/** One turn from request to end: what is asked, what is kept of it, and the only converters between its forms. */
import { z } from 'zod';
import { defined } from './defined.ts';
import { type ErrorData, errorDataSchema, refusal } from './errors.ts';
import { parseExactly } from './exact-json.ts';
import type { Overrides } from './execution-params.ts';
import {
  type EventData,
  type ExecutionInfo,
  eventData,
  executionInfoSchema,
  type Frame,
  type OnBusy,
  type TurnEvent,
} from './frames.ts';
import {
  type AgentId,
  agentIdSchema,
  type SessionId,
  sessionIdSchema,
  type TaskId,
  type TenantId,
  taskIdSchema,
  tenantIdSchema,
  type UserId,
} from './ids.ts';
import type { ReplySpec } from './reply-spec.ts';
import type { ResponseFormat } from './response-format.ts';
import type { Tier } from './tiers.ts';

export const turnStatusSchema = z.enum([
  'queued',
  'processing',
  'completed',
  'failed',
  'cancelled',
  'timeout',
]);

/** Where a turn stands, as every wire names it. */
export type TurnStatus = z.infer<typeof turnStatusSchema>;

/** A turn as it is stored. `content` is the answer, or the text so far of one that was cancelled or failed. */
export const turnRecordSchema = z
  .object({
    taskId: taskIdSchema,
    tenantId: tenantIdSchema,
    sessionId: sessionIdSchema,
    agentId: agentIdSchema,
    /** Version of the agent that ran, once one did. */
    agentVersion: z.number().int().nonnegative().exactOptional(),
    status: turnStatusSchema,
    createdAtMs: z.number(),
    finishedAtMs: z.number().exactOptional(),
    content: z.string().exactOptional(),
    /** What the model thought, up to MAX_REASONING_UNITS. */
    reasoning: z.string().exactOptional(),
    info: executionInfoSchema.exactOptional(),
    error: errorDataSchema.exactOptional(),
  })
  .readonly();
export type TurnRecord = z.infer<typeof turnRecordSchema>;

/** A tool call that runs now. */
export interface RunningTool {
  readonly callId: string;
  readonly tool: string;
}

/** A turn as it stands: while it runs, with the tools that run for it. */
export type TurnStanding = TurnRecord & { readonly tools?: readonly RunningTool[] };

/** What a turn that is over has as its status. */
export type EndStatus = Exclude<TurnStatus, 'queued' | 'processing'>;

/** How a turn ended: the part of its record that its clients, its caller and the store are told. */
export type TurnEnd = { readonly status: EndStatus } & Pick<
  TurnRecord,
  'content' | 'reasoning' | 'info' | 'error'
>;

export const isEndStatus = (status: TurnStatus): status is EndStatus =>
  status !== 'queued' && status !== 'processing';

/** An end in an error: a timeout has a status of its own. `text`: what there was of an answer. */
export const failedEnd = (error: ErrorData, info?: ExecutionInfo, text = ''): TurnEnd =>
  defined({
    status: error.code === 'EXECUTION_TIMEOUT' ? ('timeout' as const) : ('failed' as const),
    content: text === '' ? undefined : text,
    error,
    info,
  });

/**
 * The one terminal event of a turn. An error quotes nothing that was said: what there was of an answer is in the record.
 * `abortMs`: how long it took from the wish to stop it.
 */
export function terminalEvent({ status, content = '', info, error }: TurnEnd, abortMs: number): TurnEvent {
  if (error) return { type: 'error', data: error };
  if (status === 'completed' && info)
    return { type: 'chat.response', data: { content, role: 'assistant', execution_info: info } };
  return { type: 'chat.cancelled', data: { content, abort_ms: abortMs } };
}

/** Who is asking, as the access check found out. `tier` is undefined where nothing but the tenant's record names it. */
export interface Caller {
  readonly tenantId: TenantId;
  readonly tier: Tier | undefined;
  readonly userId: UserId | undefined;
}

/** Something said, as an edge parsed it: carried whole from there to the plan of its run. */
export interface TurnRequest {
  readonly caller: Caller;
  readonly sessionId: SessionId;
  readonly taskId: TaskId;
  /** True where the client chose `taskId`: only then can it be a resend. */
  readonly taskIdGiven: boolean;
  readonly agentId: AgentId | undefined;
  /** Pins a version of the agent; absent: the newest when the turn starts. */
  readonly agentVersion?: number | undefined;
  readonly message: string;
  readonly context: Readonly<Record<string, unknown>> | undefined;
  /** The same as JSON, in its place, while the turn waits: as objects it may take twenty times the room. */
  readonly contextText?: string;
  readonly stream: boolean;
  readonly onBusy: OnBusy;
  readonly requestId: string | undefined;
  readonly overrides?: Overrides;
  /** Over the agent's own. */
  readonly responseFormat?: ResponseFormat;
  /** URLs of the images that came with the message. */
  readonly images?: readonly string[];
  /**
   * A turn of this id that a stopped process left behind runs anew, where it may (Write `again`): the model is asked
   * only once the store has said so. A node that drains leaves such a turn behind too, when its time is up.
   */
  readonly resumable?: true;
  /** The replies that its end brings, each once; those of requests that say it again come on top. */
  readonly replies?: readonly ReplySpec[];
  /** The session is for this turn alone: it begins without history, and leaves memory when the turn has ended. */
  readonly ephemeral?: true;
  /**
   * Its place in the order in which the node heard of the tenant's turns, for who looks something up before it says
   * the turn. Absent: the moment it is said.
   */
  readonly arrival?: number;
}

/** A request as it waits. */
export function held(request: TurnRequest): TurnRequest {
  if (!request.context || request.contextText !== undefined) return request;
  return { ...request, context: undefined, contextText: JSON.stringify(request.context) };
}

/** What a request has as its context, waiting or not. */
export const contextOf = ({ context, contextText }: TurnRequest): Readonly<Record<string, unknown>> =>
  contextText === undefined ? (context ?? {}) : contextSchema.parse(parsed(contextText));

const parsed = (text: string): unknown => (MANY_DIGITS.test(text) ? parseExactly(text) : JSON.parse(text));

const contextSchema = z.record(z.string(), z.unknown());

/** Where there are none, no number needs to be read digit by digit. */
const MANY_DIGITS = /\d{16}/;

/** What a turn holds beside its texts. */
const TURN_BYTES = 2_000;

/** Rough bytes of a request in memory: two a unit at worst. `asObjects`: who said it has its context as objects, too. */
export function sizeOf({ message, contextText = '', images = [] }: TurnRequest, asObjects: boolean): number {
  const units = images.reduce((sum, { length }) => sum + length, message.length);
  return TURN_BYTES + 2 * units + contextText.length * (asObjects ? OBJECT_FACTOR : 2);
}

/** Objects beside their JSON, at worst. */
const OBJECT_FACTOR = 24;

export type SayReply =
  | {
      readonly ok: true;
      readonly taskId: TaskId;
      readonly accepted: EventData['chat.accepted'];
      /** The turn's end will bring the replies of the request. */
      readonly replying?: true;
    }
  | { readonly ok: false; readonly taskId: TaskId; readonly error: ErrorData };

export type CancelReply =
  | {
      readonly ok: true;
      readonly taskId: TaskId;
      readonly status: TurnStatus;
      readonly abortMs: number;
    }
  | { readonly ok: false; readonly taskId: TaskId; readonly error: ErrorData };

/** The end that a terminal frame tells. Throws for any other frame. */
export function endOfFrame({ type, data }: Frame): TurnEnd {
  if (type === 'chat.response') {
    const { content, execution_info: info } = eventData[type].parse(data);
    return { status: 'completed', content, info };
  }
  if (type === 'chat.cancelled') return { status: 'cancelled', content: eventData[type].parse(data).content };
  return failedEnd(eventData.error.parse(data));
}

/** The end that a record tells; undefined while the turn goes on. Where a record lacks what its status needs, it is an error. */
export function endOfRecord({ status, content, info, error }: TurnRecord): TurnEnd | undefined {
  if (!isEndStatus(status)) return undefined;
  if (status === 'cancelled') return defined({ status, content, info });
  if (status === 'completed' && info) return { status, content: content ?? '', info };
  return failedEnd(error ?? refusal(status === 'timeout' ? 'EXECUTION_TIMEOUT' : 'INTERNAL'), info, content);
}

/**
 * Whether a turn's error says that its question will be refused again, for what it says or for its length: a model that
 * broke off (`cut`), or missed its format (`field`), did not refuse it.
 */
export const isRefusedByModel = ({ code, details }: ErrorData): boolean =>
  code === 'MODEL_ERROR' &&
  !(typeof details === 'object' && details !== null && ('cut' in details || 'field' in details));
