/** An execution as a turn in its session: begun with `say`, heard to its end as one of the session's clients, never polled. */
import { type Reply, refusal } from '../../src/domain/errors.ts';
import { eventData, type Frame, isTerminal } from '../../src/domain/frames.ts';
import { DEFAULT_AGENT_ID, type SessionId } from '../../src/domain/ids.ts';
import type { TurnRecord, TurnRequest } from '../../src/domain/turn.ts';
import { executionBody } from '../../src/domain/turn-schemas.ts';
import type {
  Accepted,
  CallbackPlace,
  Callbacks,
  RunOptions,
  Runs,
  StartedRun,
} from '../../src/ports/executions.ts';
import type { Client, Directory } from '../../src/ports/sessions.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';

/** After this long a tenant with too many callbacks may try again. */
const FULL_RETRY_MS = 5_000;

export interface RunDeps {
  readonly directory: Directory;
  readonly callbacks: Callbacks;
  readonly clock: Clock;
  readonly log: Log;
}

interface Listener {
  readonly client: Client;
  readonly ended: Promise<Reply<TurnRecord>>;
  /** Takes the end as it stands in the record, where it is one. */
  look(): void;
  quit(): void;
}

let opened = 0;

export function createRuns({ directory, callbacks, clock, log }: RunDeps): Runs {
  const open = new Set<() => void>();
  let closed = false;

  function listen(
    request: TurnRequest,
    sessionId: SessionId,
    told: { onReady?: () => void } & Pick<RunOptions, 'onStarted' | 'brief'>,
  ): Listener {
    const { taskId, caller } = request;
    opened += 1;
    const id = `execution-${opened}`;
    const beganAtMs = clock.now();
    let over = false;
    let settle: (end: Reply<TurnRecord>) => void;
    const ended = new Promise<Reply<TurnRecord>>((resolve) => {
      settle = resolve;
    });
    /** False where it had ended already. */
    const leave = (): boolean => {
      if (over) return false;
      over = true;
      open.delete(close);
      queueMicrotask(() => directory.detach(caller.tenantId, sessionId, id));
      return true;
    };
    const close = (): void => {
      if (leave()) settle({ ok: false, error: refusal('INTERRUPTED') });
    };
    const broke = (error: unknown): void => {
      log.error({ err: error, task_id: taskId }, 'the end of an execution could not be read');
      leave();
      settle({ ok: false, error: refusal('INTERNAL') });
    };
    /** The record says more than the frame, but where a tier does not wait for the store it may be behind. */
    const finish = async (frame: Frame | undefined): Promise<void> => {
      const end = frame && endOf(frame);
      const agentId = request.agentId ?? DEFAULT_AGENT_ID;
      const began = { taskId, tenantId: caller.tenantId, sessionId, agentId, createdAtMs: beganAtMs };
      if (end && told.brief)
        return settle({ ok: true, value: { ...began, finishedAtMs: frame.atMs, ...end } });
      const found = await directory.turn(caller.tenantId, taskId);
      if (found.ok && isEnded(found.value)) return settle(found);
      if (!end) return settle(found.ok ? { ok: false, error: refusal('INTERRUPTED') } : found);
      settle({ ok: true, value: { ...(found.ok ? found.value : began), finishedAtMs: frame.atMs, ...end } });
    };
    open.add(close);
    if (closed) close();
    return {
      ended,
      client: {
        id,
        // Asks for no delta, so it hastens none for others.
        deltaWindowMs: Number.POSITIVE_INFINITY,
        send(frame) {
          if (frame.type === 'session.ready') told.onReady?.();
          if (frame.taskId !== taskId) return;
          if (frame.type === 'execution.started') told.onStarted?.();
          if (isTerminal(frame.type) && leave()) finish(frame).catch(broke);
        },
        close: () => {
          if (leave()) finish(undefined).catch(broke);
        },
      },
      look() {
        const read = async (): Promise<void> => {
          const found = await directory.turn(caller.tenantId, taskId);
          if ((!found.ok || isEnded(found.value)) && leave()) settle(found);
        };
        read().catch(broke);
      },
      quit: () => void leave(),
    };
  }

  /** What is left to hear of a turn that was accepted before. */
  async function resume(request: TurnRequest, accepted: Accepted, options: RunOptions): Promise<StartedRun> {
    const { caller, taskId } = request;
    const found = await directory.turn(caller.tenantId, taskId);
    const sessionId = found.ok ? found.value.sessionId : request.sessionId;
    if (found.ok && isEnded(found.value))
      return { ok: true, taskId, sessionId, accepted, ended: Promise.resolve(found) };
    // Looked at again once attached: a turn that ended in between has told others.
    const onReady = (): void => listener.look();
    const listener = listen(request, sessionId, { ...options, onReady });
    directory.attach(caller, sessionId, listener.client, undefined);
    return { ok: true, taskId, sessionId, accepted, ended: listener.ended };
  }

  async function run(request: TurnRequest, options: RunOptions): ReturnType<Runs['begin']> {
    const { sessionId } = request;
    const listener = options.hear ? listen(request, sessionId, options) : undefined;
    const reply = await directory.say(request, listener?.client).catch((error: unknown) => {
      listener?.quit();
      throw error;
    });
    const { taskId } = reply;
    if (reply.ok && !reply.accepted.deduplicated)
      return { ok: true, taskId, sessionId, accepted: reply.accepted, ended: listener?.ended ?? NEVER };
    listener?.quit();
    return reply.ok ? resume(request, reply.accepted, options) : { ok: false, error: reply.error };
  }

  async function deliver(place: CallbackPlace, { ended, taskId }: StartedRun): Promise<void> {
    const end = await ended;
    if (end.ok) return place.send(JSON.stringify(executionBody(end.value)));
    place.release();
    log.warn({ task_id: taskId, code: end.error.code }, 'a callback was given up: the end is not known');
  }

  return {
    async begin(request, options) {
      const { callbackUrl: url } = options;
      if (url === undefined) return run(request, options);
      const place = callbacks.reserve(request.caller.tenantId, request.taskId, url);
      if (place === 'full')
        return {
          ok: false,
          error: refusal('OVERLOADED', {
            message: 'Too many callbacks are under way.',
            retryAfterMs: FULL_RETRY_MS,
          }),
        };
      if (place === 'same') return run(request, options);
      try {
        const begun = await run(request, { ...options, hear: true });
        if (!begun.ok) place.release();
        else deliver(place, begun).catch((error: unknown) => log.error({ err: error }, 'a callback broke'));
        return begun;
      } catch (error) {
        place.release();
        throw error;
      }
    },
    close() {
      closed = true;
      for (const end of [...open]) end();
    },
  };
}

const NEVER = new Promise<never>(() => {});

const isEnded = ({ status }: TurnRecord): boolean => status !== 'queued' && status !== 'processing';

/** What a terminal frame says of its turn. */
function endOf({ type, data }: Frame): Pick<TurnRecord, 'status' | 'content' | 'info' | 'error'> {
  if (type === 'chat.response') {
    const { content, execution_info: info } = eventData[type].parse(data);
    return { status: 'completed', content, info };
  }
  if (type === 'chat.cancelled') return { status: 'cancelled', content: eventData[type].parse(data).content };
  const error = eventData.error.parse(data);
  return { status: error.code === 'EXECUTION_TIMEOUT' ? 'timeout' : 'failed', error };
}
