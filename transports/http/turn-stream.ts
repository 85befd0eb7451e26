/** Answers a chat message with its turn as server-sent events, also when the message is a resend of an older one. */
import type { ErrorData } from '../../src/domain/errors.ts';
import type { Frame } from '../../src/domain/frames.ts';
import type { SessionId, TaskId } from '../../src/domain/ids.ts';
import { endOfRecord, type TurnRequest, terminalEvent } from '../../src/domain/turn.ts';
import type { ObservedEnd, TurnWatcher } from '../../src/ports/turn-observer.ts';
import { encodeFrame } from '../wire/codec.ts';
import type { UnsentAccount } from '../wire/unsent-bytes.ts';
import { HTTP_TIMING, type HttpDeps, type HttpTiming } from './deps.ts';

/** Bytes handed to the socket at once; what comes meanwhile waits in the bounded buffer. */
const MAX_CHUNK_BYTES = 64 * 1024;

/** The stream of an accepted turn, and the session it runs in: of a resend, the one it was first sent to. */
interface StreamedTurn {
  readonly ok: true;
  readonly sessionId: SessionId;
  readonly body: ReadableStream<Uint8Array>;
}

/** What a client asks of the stream of a turn. */
export interface StreamWishes {
  /** Counts what the stream holds, where that is bounded for its tenant. */
  readonly account?: ((cut: () => void) => UnsentAccount) | undefined;
  /** The stream has `chat.reasoning` too. */
  readonly reasoning: boolean;
  /** The number of the last frame that it has of this turn; undefined: it has none. */
  readonly after: number | undefined;
}

/** Says the message. Resolves to the refusal, or to the stream of its turn. */
export async function sayAndStream(
  deps: HttpDeps,
  request: TurnRequest,
  { reasoning, after, account }: StreamWishes,
): Promise<StreamedTurn | { readonly ok: false; readonly error: ErrorData }> {
  const { clock, deltaWindowMs, log } = deps;
  const timing = { ...HTTP_TIMING, ...deps.timing };
  const open = (onEnd: () => void) => openTurnStream({ ...timing, deltaWindowMs, reasoning, onEnd, account });
  const observed = await deps.observer.say(request, open, after);
  if (!observed.ok) return observed;
  const { sessionId, watcher: stream, ended } = observed;
  const finish = async (): Promise<void> => {
    const frame = untoldFrame(await ended, request.taskId, clock.now());
    if (frame) stream.onFrame(frame);
    stream.end();
  };
  finish().catch((error: unknown) => {
    log.error({ err: error, task_id: request.taskId }, 'the end of a turn could not be streamed');
    stream.end();
  });
  return { ok: true, sessionId, body: stream.body };
}

/**
 * The terminal frame that a stream has not had from its session; a session that closes leaves it without one. It has no
 * number: that went to others.
 */
function untoldFrame(end: ObservedEnd, taskId: TaskId, nowMs: number): Frame | undefined {
  if (end.type === 'unreadable')
    return { type: 'error', data: end.error, seq: undefined, atMs: nowMs, taskId };
  if (end.type !== 'record') return undefined;
  const ended = endOfRecord(end.turn);
  const { finishedAtMs: atMs = nowMs } = end.turn;
  return ended && { ...terminalEvent(ended, 0), seq: undefined, atMs, taskId };
}

/** A frame as one server-sent event: its number, its type, and the whole frame. */
function sseEvent(frame: Frame): string {
  const id = frame.seq === undefined ? '' : `id: ${frame.seq}\n`;
  return `${id}event: ${frame.type}\ndata: ${encodeFrame(frame, 'json')}\n\n`;
}

interface TurnStreamOptions extends Pick<HttpTiming, 'heartbeatMs' | 'maxBufferedBytes'> {
  readonly deltaWindowMs: number;
  readonly reasoning: boolean;
  /** Called once: the stream was ended, or its reader left or was too slow. */
  readonly onEnd: () => void;
  readonly account?: StreamWishes['account'];
}

interface TurnStream extends TurnWatcher {
  /** Breaks off with an error if the reader is too slow. */
  readonly body: ReadableStream<Uint8Array>;
  /** Ends the stream after what it has had. */
  end(): void;
}

/**
 * Opens the stream of one turn. By hand and not Hono's streamSSE: that ends a stream that is cut off as if it were
 * whole, writes each event by itself, and leaves the bound of what waits to its caller.
 */
function openTurnStream(options: TurnStreamOptions): TurnStream {
  const { heartbeatMs, maxBufferedBytes, deltaWindowMs, reasoning, onEnd } = options;
  const backlog = createBacklog();
  const unsent = options.account?.(() => breakOff());
  /** Bytes of the chunk that the socket has not taken yet. */
  let written = 0;
  let ended = false;
  let closed = false;
  let heartbeat: NodeJS.Timeout | undefined;
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;

  const push = (text: string): void => {
    if (ended) return;
    const waiting = backlog.add(text);
    if (waiting > maxBufferedBytes) breakOff();
    else unsent?.set(waiting + written);
  };
  const breakOff = (): void => {
    discard();
    controller?.error(new Error('The reader of the stream is too slow.'));
  };
  const end = (): void => {
    if (ended) return;
    ended = true;
    clearInterval(heartbeat);
    onEnd();
    backlog.wake();
  };
  /** Ends it without what has not been read. */
  const discard = (): void => {
    backlog.clear();
    closed = true;
    end();
  };
  const beat = (): void => {
    if (backlog.isEmpty()) push(': still running\n\n');
  };

  const body = new ReadableStream<Uint8Array>(
    {
      start(own) {
        controller = own;
      },
      async pull(own) {
        if (!ended) heartbeat ??= setInterval(beat, heartbeatMs).unref();
        // Asked for the next chunk: the one before is taken.
        unsent?.set(backlog.bytes());
        written = 0;
        if (backlog.isEmpty() && !ended) await backlog.changed();
        if (closed) return;
        if (backlog.isEmpty()) own.close();
        else {
          const chunk = backlog.take();
          written = chunk.length;
          unsent?.set(backlog.bytes() + written);
          own.enqueue(chunk);
        }
      },
      cancel: discard,
    },
    { highWaterMark: 0 },
  );
  return {
    deltaWindowMs,
    reasoning,
    onFrame: (frame) => push(sseEvent(frame)),
    body,
    end,
  };
}

/** Text that its reader has not taken yet. */
function createBacklog() {
  const texts: string[] = [];
  let bytes = 0;
  let wake = (): void => {};
  return {
    wake: (): void => wake(),
    /** Resolves a loop turn after the next text, or `wake`: what one loop turn brings is taken at once. */
    changed: (): Promise<void> =>
      new Promise((resolve) => {
        wake = () => {
          wake = () => {};
          setImmediate(resolve);
        };
      }),
    isEmpty: () => texts.length === 0,
    bytes: () => bytes,
    /** Returns how many bytes wait now. */
    add(text: string): number {
      texts.push(text);
      bytes += Buffer.byteLength(text);
      wake();
      return bytes;
    },
    /** Takes the oldest texts, together up to MAX_CHUNK_BYTES where the first is not longer. */
    take(): Uint8Array {
      let units = 0;
      const after = texts.findIndex((text, index) => {
        units += text.length;
        return index > 0 && units > MAX_CHUNK_BYTES;
      });
      const chunk = Buffer.from(texts.splice(0, after < 0 ? texts.length : after).join(''));
      bytes -= chunk.length;
      return chunk;
    },
    clear(): void {
      texts.length = 0;
      bytes = 0;
    },
  };
}
