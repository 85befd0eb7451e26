/** One session's numbered events: kept for replay, gathered where they are deltas, handed to every client. */
import type { Message } from '../../src/domain/conversation.ts';
import { defined } from '../../src/domain/defined.ts';
import type { Close } from '../../src/domain/errors.ts';
import { type Frame, isTerminal, type Notice, type TurnEvent } from '../../src/domain/frames.ts';
import type { SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import type { Tier } from '../../src/domain/tiers.ts';
import type { ExecutionEvent } from '../../src/ports/runner.ts';
import type { Client, ResumePoint } from '../../src/ports/sessions.ts';
import type { Clock } from '../../src/ports/telemetry.ts';
import type { Pacer } from './delta-pacer.ts';
import { createReplayLog } from './replay-log.ts';
import {
  bounded,
  noted,
  type OpenText,
  type ReasoningNotice,
  type ToldEvent,
  type TurnText,
  wellEnded,
} from './turn.ts';

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
 * Order: events get their numbers in the order of the calls. Reasoning has no number and is not kept for replay, so that
 * who has not asked for it sees no gap, and who has may resume like everybody. A turn's execution events wait until its
 * `chat.accepted` is out, and are dropped once the turn is sealed.
 */
export interface EventStream {
  readonly epoch: string;
  /** Numbers, keeps and sends an event. */
  event(taskId: TaskId, event: TurnEvent, atMs: number): void;
  /** Opens a turn for its execution; one at a time. */
  turn(taskId: TaskId, options: TurnOptions): TurnSink;
  /** Takes no more from the turn's execution; returns what its clients have been given, and its reasoning. */
  seal(taskId: TaskId): TurnText;
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

interface EventStreamOptions {
  readonly tenantId: TenantId;
  readonly epoch: string;
  readonly clock: Clock;
  readonly pacer: Pacer;
  /** How long deltas are held back while no client asks for less, ms. */
  readonly deltaWindowMs: number;
  /** Told of a client that threw instead of taking a frame; it is let go, and the others go on. */
  readonly onFault: (error: unknown) => void;
}

/** The turn whose execution writes now. */
interface OpenTurn extends OpenText {
  readonly taskId: TaskId;
  readonly stream: boolean;
  /** Events that wait for `chat.accepted`; null once it is out. */
  held: ToldEvent[] | null;
  readonly release: () => void;
  /** Text and reasoning that are not in a frame yet. */
  pending: string;
  pendingReasoning: string;
  /** What came last: pieces of one kind travel together. */
  last: 'text' | 'reasoning';
  flushing: boolean;
  /** The first delta is out: the next ones may be held back. */
  flowing: boolean;
  /** When the newest delta went out, ms since the epoch. */
  flushedAtMs: number;
  sealed: boolean;
}

const ALREADY: Promise<void> = Promise.resolve();

export const createEventStream = (options: EventStreamOptions): EventStream => new SessionStream(options);

/** A class, as every session in memory has one: a closure for each method would weigh more than all it holds. */
class SessionStream implements EventStream {
  readonly #options: EventStreamOptions;
  readonly #clients = new Map<string, Client>();
  readonly #log = createReplayLog();
  #windowMs: number;
  #isReasoningWanted = false;
  #open: OpenTurn | null = null;

  constructor(options: EventStreamOptions) {
    this.#options = options;
    this.#windowMs = options.deltaWindowMs;
  }

  get epoch(): string {
    return this.#options.epoch;
  }

  event(taskId: TaskId, event: TurnEvent, atMs: number): void {
    const turn = this.#openTurn(taskId);
    if (turn) this.#flush(turn);
    this.#publish(taskId, event, atMs);
    if (turn?.held && event.type === 'chat.accepted') this.#release(turn);
    if (turn && isTerminal(event.type)) {
      turn.sealed = true;
      this.#open = null;
    }
    if (event.type === 'chat.response') this.#log.compact(taskId, event.data.content);
  }

  turn(taskId: TaskId, options: TurnOptions): TurnSink {
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
      reasoning: '',
      standing: 0,
      pendingReasoning: '',
      last: 'text',
      flushing: false,
      flowing: false,
      flushedAtMs: 0,
      sealed: false,
    };
    this.#open = turn;
    const emit = (event: ExecutionEvent): void => {
      const told = turn.sealed ? undefined : noted(turn, event);
      if (told) this.#write(turn, told);
    };
    return { emit, accepted };
  }

  seal(taskId: TaskId): TurnText {
    const turn = this.#openTurn(taskId);
    if (!turn) return { text: '' };
    turn.sealed = true;
    this.#flush(turn);
    // What is held still belongs to the turn: it is sent after `chat.accepted`, before the end.
    const text = wellEnded(turn.text);
    if (turn.reasoning === '') return { text };
    return { text, reasoning: bounded(turn.reasoning) };
  }

  discard(taskId: TaskId): void {
    const turn = this.#openTurn(taskId);
    if (!turn) return;
    this.#open = null;
    turn.held = null;
    turn.pending = '';
    turn.pendingReasoning = '';
    turn.sealed = true;
    turn.release();
  }

  attach(client: Client, ready: AttachReady): void {
    if (this.#open) this.#flush(this.#open);
    const { resume } = ready;
    const missed = resume ? this.#missed(resume) : null;
    const data = {
      tenant_id: ready.tenantId,
      session_id: ready.sessionId,
      tier: ready.tier,
      epoch: this.epoch,
      seq: this.#log.seq(),
      ...(resume ? { recovered: missed !== null } : {}),
      running: [...ready.running],
    };
    client.send(unnumbered({ type: 'session.ready', data }, ready.atMs));
    if (missed) for (const frame of missed) client.send(frame);
    else if (resume) client.send(unnumbered(snapshot(ready, this.#open), ready.atMs));
    this.watch(client);
  }

  /** The frames after that point, or null where they are not all there. */
  #missed({ lastSeq, epoch, taskId }: ResumePoint): readonly Frame[] | null {
    if (taskId === undefined) return epoch === this.epoch ? this.#log.after(lastSeq) : null;
    const ofTurn = this.#log.after(lastSeq)?.filter((frame) => frame.taskId === taskId) ?? [];
    return ofTurn.length > 0 ? ofTurn : null;
  }

  watch(client: Client): void {
    this.#clients.set(client.id, client);
    this.#settleWishes();
  }

  detach(clientId: string): void {
    if (this.#clients.delete(clientId)) this.#settleWishes();
  }

  notice(notice: Parameters<typeof unnumbered>[0], atMs: number): void {
    this.#send(unnumbered(notice, atMs));
  }

  close(close: Close): void {
    for (const client of this.#clients.values()) client.close(close);
    this.#clients.clear();
  }

  #openTurn(taskId: TaskId): OpenTurn | null {
    return this.#open?.taskId === taskId ? this.#open : null;
  }

  /** Often called from a timer, past every actor: what a client throws here would end the process. */
  #send(frame: Frame, isReasoning = false): void {
    for (const client of this.#clients.values())
      try {
        if (!isReasoning || client.reasoning) client.send(frame);
      } catch (error) {
        this.detach(client.id);
        this.#options.onFault(error);
      }
  }

  #publish(taskId: TaskId, event: TurnEvent, atMs: number): void {
    this.#send(this.#log.append(event.type, atMs, taskId, event.data));
  }

  #flush(turn: OpenTurn): void {
    turn.flushing = false;
    if (turn.held) return;
    this.#flushReasoning(turn);
    if (turn.pending === '') return;
    const content = wellEnded(turn.pending);
    turn.pending = turn.pending.slice(content.length);
    if (content === '') return;
    turn.flowing = true;
    turn.flushedAtMs = this.#options.clock.now();
    this.#publish(turn.taskId, { type: 'chat.delta', data: { content } }, turn.flushedAtMs);
  }

  #flushReasoning(turn: OpenTurn): void {
    const content = wellEnded(turn.pendingReasoning);
    if (content === '') return;
    turn.pendingReasoning = turn.pendingReasoning.slice(content.length);
    turn.flowing = true;
    turn.flushedAtMs = this.#options.clock.now();
    this.#sendReasoning(turn, { content: content.toWellFormed() });
  }

  #sendReasoning({ taskId }: OpenTurn, data: ReasoningNotice['data']): void {
    const notice = { type: 'chat.reasoning', data, taskId } as const;
    this.#send(unnumbered(notice, this.#options.clock.now()), true);
  }

  #write(turn: OpenTurn, event: ToldEvent): void {
    if (turn.held) {
      turn.held.push(event);
      return;
    }
    if (event.type === 'chat.delta') this.#gather(turn, 'text', event.data.content);
    else if (event.type !== 'chat.reasoning') {
      this.#flush(turn);
      this.#publish(turn.taskId, event, this.#options.clock.now());
    } else if (event.data.replace) this.#replaceReasoning(turn, event.data.content);
    else this.#gather(turn, 'reasoning', event.data.content);
  }

  #replaceReasoning(turn: OpenTurn, content: string): void {
    turn.pendingReasoning = '';
    this.#flush(turn);
    if (turn.stream) this.#sendReasoning(turn, { content, replace: true });
  }

  /**
   * Holds a piece back for the others of its kind that come within the window. The first of a kind goes out at once, and
   * so does one that comes later than the window after the one before it: nothing is gained by holding that back.
   */
  #gather(turn: OpenTurn, kind: OpenTurn['last'], content: string): void {
    if (!turn.stream || (kind === 'reasoning' && !this.#isReasoningWanted)) return;
    if (turn.last !== kind) {
      this.#flush(turn);
      turn.last = kind;
      turn.flowing = false;
    }
    if (kind === 'text') turn.pending += content;
    else turn.pendingReasoning += content;
    if (turn.flushing) return;
    turn.flushing = true;
    const { pacer, clock, tenantId } = this.#options;
    const sinceMs = turn.flowing ? clock.now() - turn.flushedAtMs : Number.POSITIVE_INFINITY;
    if (sinceMs < this.#windowMs) pacer.later(tenantId, () => this.#flush(turn), this.#windowMs);
    else pacer.soon(tenantId, () => this.#flush(turn));
  }

  /** `chat.accepted` is out: what the execution wrote meanwhile follows it. */
  #release(turn: OpenTurn): void {
    const held = turn.held ?? [];
    turn.held = null;
    for (const event of held) this.#write(turn, event);
    turn.release();
  }

  /** What its clients want together. */
  #settleWishes(): void {
    this.#windowMs = this.#options.deltaWindowMs;
    this.#isReasoningWanted = false;
    for (const client of this.#clients.values()) {
      this.#windowMs = Math.min(this.#windowMs, client.deltaWindowMs);
      this.#isReasoningWanted ||= client.reasoning === true;
    }
  }
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

function snapshot({ messages }: AttachReady, open: OpenTurn | null): Notice {
  const kept = messages.map(({ role, content, taskId, partial }) =>
    defined({ role, content, task_id: taskId, partial }),
  );
  const partial =
    open && !open.held && open.text !== ''
      ? [{ role: 'assistant', content: wellEnded(open.text), task_id: open.taskId, partial: true } as const]
      : [];
  return { type: 'session.snapshot', data: { messages: [...kept, ...partial] } };
}
