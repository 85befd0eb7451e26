/** Answers a chat message with its turn as server-sent events, also when the message is a resend of an older one. */
import { refusal } from '../../src/domain/errors.ts';
import type { Frame, TurnEvent } from '../../src/domain/frames.ts';
import type { SessionId } from '../../src/domain/ids.ts';
import type { SayReply, TurnRecord, TurnRequest } from '../../src/domain/turn.ts';
import { HTTP_TIMING, type HttpDeps } from './deps.ts';
import { openTurnStream, type TurnStream } from './sse.ts';

let opened = 0;

type Accepted = Extract<SayReply, { ok: true }>;
type Refused = Extract<SayReply, { ok: false }>;

/** The stream of an accepted turn, and the session it runs in: of a resend, the one it was first sent to. */
export interface Streamed {
  readonly reply: Accepted;
  readonly sessionId: SessionId;
  readonly body: ReadableStream<Uint8Array>;
}

/** Says the message. Resolves to the refusal, or to the stream of its turn. */
export async function sayAndStream(
  deps: HttpDeps,
  request: TurnRequest,
): Promise<Streamed | { readonly reply: Refused }> {
  const own = open(deps, request, request.sessionId);
  const reply = await deps.directory.say(request, own.client).catch((error: unknown) => {
    own.end();
    throw error;
  });
  if (reply.ok && reply.accepted.deduplicated !== true)
    return { reply, sessionId: request.sessionId, body: own.body };
  own.end();
  return reply.ok ? resend(deps, request, reply) : { reply };
}

function open(deps: HttpDeps, request: TurnRequest, sessionId: SessionId, onReady?: () => void): TurnStream {
  const timing = { ...HTTP_TIMING, ...deps.timing };
  opened += 1;
  const id = `sse-${opened}`;
  return openTurnStream({
    id,
    taskId: request.taskId,
    deltaWindowMs: deps.deltaWindowMs,
    heartbeatMs: timing.heartbeatMs,
    maxBufferedBytes: timing.maxBufferedBytes,
    onEnd: () => deps.directory.detach(request.caller.tenantId, sessionId, id),
    ...(onReady ? { onReady } : {}),
  });
}

/**
 * The stream of a turn that was accepted before: the acceptance, then what the turn still brings, then its end. Where
 * it has ended, the end is told again out of the record. Frames told again have no number: theirs went to others.
 */
async function resend(deps: HttpDeps, request: TurnRequest, reply: Accepted): Promise<Streamed> {
  const { tenantId } = request.caller;
  const found = await deps.directory.turn(tenantId, request.taskId);
  const sessionId = found.ok ? found.value.sessionId : request.sessionId;
  const tell = (event: TurnEvent, atMs: number): void => {
    const frame: Frame = { ...event, seq: undefined, atMs, taskId: request.taskId };
    stream.client.send(frame);
  };
  const tellEnd = (turn: TurnRecord): boolean => {
    const event = endOf(turn);
    if (event) tell(event, turn.finishedAtMs ?? deps.clock.now());
    return event !== undefined;
  };
  // Asked again once attached: a turn that ended in between has sent its end already, to others.
  const askAgain = async (): Promise<void> => {
    const again = await deps.directory.turn(tenantId, request.taskId);
    if (again.ok) tellEnd(again.value);
    else tell({ type: 'error', data: again.error }, deps.clock.now());
  };
  const stream = open(deps, request, sessionId, () => {
    askAgain().catch((error: unknown) => {
      deps.log.error({ err: error, task_id: request.taskId }, 'the end of a resent turn could not be read');
      tell({ type: 'error', data: refusal('INTERNAL') }, deps.clock.now());
    });
  });
  tell({ type: 'chat.accepted', data: reply.accepted }, deps.clock.now());
  if (!(found.ok && tellEnd(found.value)))
    deps.directory.attach(request.caller, sessionId, stream.client, undefined);
  return { reply, sessionId, body: stream.body };
}

/** The terminal event of a turn, out of its record; undefined while it goes on. */
function endOf(turn: TurnRecord): TurnEvent | undefined {
  const content = turn.content ?? '';
  switch (turn.status) {
    case 'queued':
    case 'processing':
      return undefined;
    case 'cancelled':
      return { type: 'chat.cancelled', data: { content, abort_ms: 0 } };
    case 'completed':
      if (turn.info)
        return { type: 'chat.response', data: { content, role: 'assistant', execution_info: turn.info } };
      return { type: 'error', data: refusal('INTERNAL') };
    case 'failed':
      return { type: 'error', data: turn.error ?? refusal('INTERNAL') };
    case 'timeout':
      return { type: 'error', data: turn.error ?? refusal('EXECUTION_TIMEOUT') };
  }
}
