/** One session's numbered events: kept for replay, gathered where they are deltas, handed to every client. */
import type { Message } from '../../src/domain/conversation.ts';
import type { Close } from '../../src/domain/errors.ts';
import { type Frame, isTerminal, type Notice, type TurnEvent } from '../../src/domain/frames.ts';
import type { SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import type { Tier } from '../../src/domain/tiers.ts';
import type { ExecutionEvent } from '../../src/ports/runner.ts';
import type { Client, ResumePoint } from '../../src/ports/sessions.ts';
import type { Clock } from '../../src/ports/telemetry.ts';
import type { Pacer } from './delta-pacer.ts';
import { createReplayLog } from './replay-log.ts';

/** A turn as its execution sees it: written straight to the clients, past every mailbox. */
export interface TurnSink {
  readonly emit: (event: ExecutionEvent) => void;
  /** Resolves when the turn has been accepted, or never will be. */
  readonly accepted: Promise<void>;
}

export interface TurnOptions {
  /** False suppresses deltas. */
  readonly stream: boolean;
  /** `chat.accepted` is out already. */
  readonly accepted: boolean;
}

/**
 * One session's numbered event log and its clients. It alone gives out `seq`.
 * Order: events get their numbers in the order of the calls. A turn's execution events wait until its
 * `chat.accepted` is out, and are dropped once the turn is sealed.
 */
export interface EventStream {
  readonly epoch: string;
  /** Numbers, keeps and sends an event. */
  event(taskId: TaskId, event: TurnEvent, atMs: number): void;
  /** Opens a turn for its execution; one at a time. */
  turn(taskId: TaskId, options: TurnOptions): TurnSink;
  /** Takes no more from the turn's execution; returns the text its clients have been given. */
  seal(taskId: TaskId): string;
  /** Forgets what a turn has written and not sent. */
  discard(taskId: TaskId): void;
  /** Sends `session.ready`, then what the client missed or a snapshot, then all that follows. */
  attach(client: Client, ready: AttachReady): void;
  /** Sends all that follows, and nothing else. */
  watch(client: Client): void;
  detach(clientId: string): void;
  /** To every client, unnumbered. */
  notice(notice: Pick<Frame, 'type' | 'data'> & { readonly taskId?: string }, atMs: number): void;
  close(close: Close): void;
}

export interface AttachReady {
  readonly tenantId: TenantId;
  readonly sessionId: SessionId;
  readonly tier: Tier;
  readonly running: readonly TaskId[];
  readonly resume: ResumePoint | undefined;
  readonly messages: readonly Message[];
  readonly atMs: number;
}

interface OutboxOptions {
  readonly epoch: string;
  readonly clock: Clock;
  readonly pacer: Pacer;
  /** How long deltas are held back while no client asks for less, ms. */
  readonly deltaWindowMs: number;
  /** Told of a client that threw instead of taking a frame; it is let go, and the others go on. */
  readonly onFault: (error: unknown) => void;
}

/** The turn whose execution writes now. */
interface OpenTurn {
  readonly taskId: TaskId;
  readonly stream: boolean;
  /** Events that wait for `chat.accepted`; null once it is out. */
  held: ExecutionEvent[] | null;
  readonly release: () => void;
  /** All deltas so far, and those of them not yet in a frame. */
  text: string;
  pending: string;
  flushing: boolean;
  /** The first delta is out: the next ones may be held back. */
  flowing: boolean;
  sealed: boolean;
}

const ALREADY: Promise<void> = Promise.resolve();

export function createEventStream({
  epoch,
  clock,
  pacer,
  deltaWindowMs,
  onFault,
}: OutboxOptions): EventStream {
  const clients = new Map<string, Client>();
  const log = createReplayLog();
  let windowMs = deltaWindowMs;
  let open: OpenTurn | null = null;

  /** Often called from a timer, past every actor: what a client throws here would end the process. */
  function send(frame: Frame): void {
    for (const client of clients.values())
      try {
        client.send(frame);
      } catch (error) {
        outbox.detach(client.id);
        onFault(error);
      }
  }

  function publish(taskId: TaskId, event: TurnEvent, atMs: number): void {
    send(log.append(event.type, atMs, taskId, event.data));
  }

  function flush(turn: OpenTurn): void {
    turn.flushing = false;
    if (turn.pending === '' || turn.held) return;
    const content = wellEnded(turn.pending);
    turn.pending = turn.pending.slice(content.length);
    if (content === '') return;
    turn.flowing = true;
    publish(turn.taskId, { type: 'chat.delta', data: { content } }, clock.now());
  }

  function write(turn: OpenTurn, event: ExecutionEvent): void {
    if (turn.held) {
      turn.held.push(event);
      return;
    }
    if (event.type !== 'chat.delta') {
      flush(turn);
      publish(turn.taskId, event, clock.now());
      return;
    }
    turn.text += event.data.content;
    if (!turn.stream) return;
    turn.pending += event.data.content;
    if (turn.flushing) return;
    turn.flushing = true;
    if (turn.flowing && windowMs > 0) pacer.later(() => flush(turn), windowMs);
    else pacer.soon(() => flush(turn));
  }

  /** `chat.accepted` is out: what the execution wrote meanwhile follows it. */
  function release(turn: OpenTurn): void {
    const held = turn.held ?? [];
    turn.held = null;
    for (const event of held) write(turn, event);
    turn.release();
  }

  function settleWindow(): void {
    windowMs = deltaWindowMs;
    for (const client of clients.values()) windowMs = Math.min(windowMs, client.deltaWindowMs);
  }

  const outbox: EventStream = {
    epoch,
    event(taskId, event, atMs) {
      const turn = open?.taskId === taskId ? open : null;
      const ends = isTerminal(event.type);
      if (turn) flush(turn);
      publish(taskId, event, atMs);
      if (turn?.held && event.type === 'chat.accepted') release(turn);
      if (ends && turn) {
        turn.sealed = true;
        open = null;
      }
      if (event.type === 'chat.response') log.compact(taskId, event.data.content);
    },
    turn(taskId, options) {
      let release = (): void => undefined;
      const accepted = options.accepted
        ? ALREADY
        : new Promise<void>((resolve) => {
            release = resolve;
          });
      const turn: OpenTurn = {
        taskId,
        stream: options.stream,
        held: options.accepted ? null : [],
        release: () => release(),
        text: '',
        pending: '',
        flushing: false,
        flowing: false,
        sealed: false,
      };
      open = turn;
      const emit = (event: ExecutionEvent): void => {
        if (!turn.sealed) write(turn, event);
      };
      return { emit, accepted };
    },
    seal(taskId) {
      if (open?.taskId !== taskId) return '';
      const turn = open;
      turn.sealed = true;
      flush(turn);
      // What is held still belongs to the turn: it is sent after `chat.accepted`, before the end.
      const held = (turn.held ?? []).reduce((text, event) => text + textIn(event), '');
      return wellEnded(turn.text + held);
    },
    discard(taskId) {
      if (open?.taskId !== taskId) return;
      const turn = open;
      open = null;
      turn.held = null;
      turn.pending = '';
      turn.sealed = true;
      turn.release();
    },
    attach(client, ready) {
      if (open) flush(open);
      const { resume } = ready;
      const missed = resume && resume.epoch === epoch ? log.after(resume.lastSeq) : null;
      const data = {
        tenant_id: ready.tenantId,
        session_id: ready.sessionId,
        tier: ready.tier,
        epoch,
        seq: log.seq(),
        ...(resume ? { recovered: missed !== null } : {}),
        running: [...ready.running],
      };
      client.send(unnumbered({ type: 'session.ready', data }, ready.atMs));
      if (missed) for (const frame of missed) client.send(frame);
      else if (resume) client.send(unnumbered(snapshot(ready, open), ready.atMs));
      outbox.watch(client);
    },
    watch(client) {
      clients.set(client.id, client);
      settleWindow();
    },
    detach(clientId) {
      if (clients.delete(clientId)) settleWindow();
    },
    notice(notice, atMs) {
      send(unnumbered(notice, atMs));
    },
    close(close) {
      for (const client of clients.values()) client.close(close);
      clients.clear();
    },
  };
  return outbox;
}

/** A frame that concerns clients and no turn; `taskId` may name a task of agent management. */
export const unnumbered = (
  notice: Pick<Frame, 'type' | 'data'> & { readonly taskId?: string },
  atMs: number,
): Frame => ({
  type: notice.type,
  seq: undefined,
  atMs,
  taskId: notice.taskId,
  data: notice.data,
});

/**
 * The text without the first half of a character whose other half has not come yet. Models may cut a surrogate
 * pair in two; a half by itself is no UTF-8, and only some clients put the halves together again.
 */
function wellEnded(text: string): string {
  const unit = text.charCodeAt(text.length - 1);
  return unit >= 0xd800 && unit <= 0xdbff ? text.slice(0, -1) : text;
}

const textIn = (event: ExecutionEvent): string => (event.type === 'chat.delta' ? event.data.content : '');

function snapshot({ messages }: AttachReady, open: OpenTurn | null): Notice {
  const kept = messages.map(({ role, content, taskId }) => ({ role, content, task_id: taskId }));
  const partial =
    open && !open.held && open.text !== ''
      ? [{ role: 'assistant', content: wellEnded(open.text), task_id: open.taskId, partial: true } as const]
      : [];
  return { type: 'session.snapshot', data: { messages: [...kept, ...partial] } };
}
