/** Hears a turn to its end as a client of its session, new or said before, whatever the session and the node do meanwhile. */
import { defined } from '../../src/domain/defined.ts';
import { type Reply, refusal } from '../../src/domain/errors.ts';
import { isTerminal, type TurnEvent } from '../../src/domain/frames.ts';
import { DEFAULT_AGENT_ID, type SessionId } from '../../src/domain/ids.ts';
import { endOfFrame, isEndStatus, type TurnRecord, type TurnRequest } from '../../src/domain/turn.ts';
import type { Client, Directory } from '../../src/ports/sessions.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';
import type {
  Accepted,
  ObservedEnd,
  ObservedTurn,
  TurnObserver,
  TurnWatcher,
} from '../../src/ports/turn-observer.ts';

interface TurnObserverDeps {
  readonly directory: Directory;
  readonly clock: Clock;
  readonly log: Log;
}

type MakeWatcher<W> = (leave: () => void) => W;

/** Its end, and whether nobody waits for it any more. */
interface Watched {
  end(how: ObservedEnd): void;
  hasLeft(): boolean;
}

/** Between two looks at a turn that was said before, ms. */
const LOOK_MS = 1_000;

let opened = 0;

export function createTurnObserver({ directory, clock, log }: TurnObserverDeps): TurnObserver {
  const watches = createWatches(directory);

  /** Watches what is left of a turn that was accepted before. */
  async function resume<W extends TurnWatcher>(
    request: TurnRequest,
    before: Accepted,
    makeWatcher: MakeWatcher<W>,
    after: number | undefined,
  ): Promise<ObservedTurn<W>> {
    const { caller, taskId } = request;
    const found = await directory.turn(caller.tenantId, taskId);
    const sessionId = found.ok ? found.value.sessionId : request.sessionId;
    const isOver = found.ok && isEndStatus(found.value.status);
    const accepted: Accepted = isOver ? { ...before, status: found.value.status } : before;
    // Read again once attached: a turn that ended in between has sent its end to others.
    const watch = watches.open(request, sessionId, makeWatcher, (recovered) => {
      if (after !== undefined && !recovered) tellAcceptance();
      void lookForEnd(request, watch);
    });
    const { watcher, client, ended } = watch;
    const tellAcceptance = (): void => {
      const event: TurnEvent = { type: 'chat.accepted', data: accepted };
      watcher.onFrame({ ...event, seq: undefined, atMs: clock.now(), taskId });
    };
    if (after !== undefined)
      directory.attach(caller, sessionId, client, { ...NO_EPOCH, lastSeq: after, taskId });
    else {
      tellAcceptance();
      if (found.ok && isEndStatus(found.value.status)) watch.end({ type: 'record', turn: found.value });
      else directory.attach(caller, sessionId, client, undefined);
    }
    return { ok: true, accepted, sessionId, watcher, ended };
  }

  /** Looks until it has ended: a turn that runs on another node is not heard of here. */
  async function lookForEnd(request: TurnRequest, watch: Watched): Promise<void> {
    const { caller, taskId } = request;
    const { end } = watch;
    try {
      const found = await directory.turn(caller.tenantId, taskId);
      if (!found.ok) end({ type: 'unreadable', error: found.error });
      else if (isEndStatus(found.value.status)) end({ type: 'record', turn: found.value });
      else if (!watch.hasLeft())
        setTimeout(() => watch.hasLeft() || lookForEnd(request, watch), LOOK_MS).unref();
    } catch (error) {
      log.error({ err: error, task_id: taskId }, 'the end of a repeated turn could not be read');
      end({ type: 'unreadable', error: refusal('INTERNAL') });
    }
  }

  return {
    async say(request, makeWatcher, after) {
      const { caller, sessionId } = request;
      const watch = watches.open(request, sessionId, makeWatcher);
      const { watcher, client, ended } = watch;
      const reply = await directory.say(request, client).catch((error: unknown) => {
        watch.leave();
        throw error;
      });
      if (reply.ok && !reply.accepted.deduplicated) {
        // A watcher that left meanwhile may have been attached after that.
        if (watch.hasLeft()) directory.detach(caller.tenantId, sessionId, client.id);
        const { accepted, replying } = reply;
        return { ok: true, accepted, sessionId, watcher, ended, ...defined({ replying }) };
      }
      watch.leave();
      if (!reply.ok) return { ok: false, error: reply.error };
      const resumed = await resume(request, reply.accepted, makeWatcher, after);
      return { ...resumed, ...defined({ replying: reply.replying }) };
    },
    close: () => watches.close(),
  };
}

const NO_EPOCH = { epoch: undefined };

/** Whether a `session.ready` says that what was missed follows. */
const isRecovery = (data: unknown): boolean =>
  typeof data === 'object' && data !== null && 'recovered' in data && data.recovered === true;

/** The watches of a node that are not over. */
function createWatches(directory: Pick<Directory, 'detach'>) {
  const open = new Set<() => void>();
  let closed = false;
  return {
    /** A watcher as a client of a session. Its end counts once, unless it has left. `onReady`: the session has attached it. */
    open<W extends TurnWatcher>(
      { caller, taskId }: TurnRequest,
      sessionId: SessionId,
      makeWatcher: MakeWatcher<W>,
      onReady?: (recovered: boolean) => void,
    ) {
      opened += 1;
      const id = `turn-observer-${opened}`;
      let left = false;
      let settle: (how: ObservedEnd) => void;
      const ended = new Promise<ObservedEnd>((resolve) => {
        settle = resolve;
      });
      const leave = (): void => {
        if (left) return;
        left = true;
        open.delete(stop);
        // Not inside the session's `send`.
        queueMicrotask(() => directory.detach(caller.tenantId, sessionId, id));
      };
      const end = (how: ObservedEnd): void => {
        if (left) return;
        leave();
        settle(how);
      };
      const stop = (): void => end({ type: 'closed', by: 'node' });
      open.add(stop);
      if (closed) stop();
      const watcher = makeWatcher(leave);
      const client: Client = {
        id,
        deltaWindowMs: watcher.deltaWindowMs,
        reasoning: watcher.reasoning ?? false,
        send(frame) {
          if (left) return;
          if (frame.type === 'session.ready') onReady?.(isRecovery(frame.data));
          if (frame.taskId !== taskId) return;
          watcher.onFrame(frame);
          if (isTerminal(frame.type)) end({ type: 'frame', frame });
        },
        close: () => end({ type: 'closed', by: 'session' }),
      };
      return { watcher, client, ended, end, leave, hasLeft: () => left };
    },
    close(): void {
      closed = true;
      for (const stop of [...open]) stop();
    },
  };
}

/**
 * The record of how an observed turn ended. `source` 'frame': what its terminal frame says is enough, where there was
 * one. 'record': it is read, for it says more; where a tier does not wait for the store it may be behind, and then it
 * is made up from the frame. Rejects where the directory does.
 */
export async function endRecord(
  directory: Pick<Directory, 'turn'>,
  request: TurnRequest,
  beganAtMs: number,
  { sessionId, ended }: Pick<ObservedTurn<TurnWatcher>, 'sessionId' | 'ended'>,
  source: 'frame' | 'record',
): Promise<Reply<TurnRecord>> {
  const end = await ended;
  const { taskId, agentId = DEFAULT_AGENT_ID } = request;
  const { tenantId } = request.caller;
  if (end.type === 'record') return { ok: true, value: end.turn };
  if (end.type === 'unreadable') return { ok: false, error: end.error };
  if (end.type === 'closed' && end.by === 'node') return { ok: false, error: refusal('INTERRUPTED') };
  const began = { taskId, tenantId, sessionId, agentId, createdAtMs: beganAtMs };
  const ending =
    end.type === 'frame' ? { finishedAtMs: end.frame.atMs, ...endOfFrame(end.frame) } : undefined;
  if (ending && source === 'frame') return { ok: true, value: { ...began, ...ending } };
  const found = await directory.turn(tenantId, taskId);
  if (found.ok && isEndStatus(found.value.status)) return found;
  if (ending) return { ok: true, value: { ...(found.ok ? found.value : began), ...ending } };
  return found.ok ? { ok: false, error: refusal('INTERRUPTED') } : found;
}
