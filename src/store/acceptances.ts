/** Finds out what became of accepted turns whose answer the database lost, before anybody is told of them. */
import type { TurnRecord } from '../domain/turn.ts';
import type { Write, WriteOutcome } from '../ports/store.ts';
import type { Log } from '../ports/telemetry.ts';

type TurnAccepted = Extract<Write, { type: 'turn-accepted' }>;

interface AcceptancesDeps {
  /** The turn of that tenant and task id, as it is stored. */
  readonly find: (turn: TurnRecord) => Promise<TurnRecord | null>;
  /** Deletes the turn, unless it has ended or is another of that id. */
  readonly withdraw: (turn: TurnRecord) => Promise<unknown>;
  readonly log: Log | undefined;
}

export interface Acceptances {
  /** What became of a write that failed with `error` and may have been stored. Rejects with it where it was not. */
  settle(write: TurnAccepted, error: unknown): Promise<WriteOutcome>;
  /** Turns that were refused and may be stored all the same: they are taken back before another is accepted. */
  readonly doubtful: ReadonlyMap<string, TurnRecord>;
  /** Takes back what is doubtful. Asks in this tick; what fails stays. */
  withdraw(): void;
  close(): void;
}

const ASK_EVERY_MS = 200;
/** So long whoever said it waits; a message that will come again, by itself, waits longer. */
const PATIENCE_MS = 5_000;
const RESUMABLE_PATIENCE_MS = 20_000;
const WITHDRAW_EVERY_MS = 1_000;
/** Beyond, the oldest stay as they are until the next start. */
const MAX_DOUBTFUL = 10_000;

export function createAcceptances({ find, withdraw, log }: AcceptancesDeps): Acceptances {
  const doubtful = new Map<string, TurnRecord>();
  const asked = new Set<string>();
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  /** Undefined where the database does not say. */
  async function ask(turn: TurnRecord): Promise<TurnRecord | null | undefined> {
    try {
      return await find(turn);
    } catch {
      return undefined;
    }
  }

  function doubt(turn: TurnRecord): void {
    doubtful.set(keyOf(turn), turn);
    const [oldest] = doubtful.keys();
    if (doubtful.size > MAX_DOUBTFUL && oldest !== undefined) doubtful.delete(oldest);
    log?.warn({ tenant_id: turn.tenantId, task_id: turn.taskId }, 'a refused turn may be stored');
    schedule();
  }

  function schedule(): void {
    if (closed || timer || doubtful.size === 0) return;
    timer = setTimeout(() => {
      timer = undefined;
      takeBack();
      schedule();
    }, WITHDRAW_EVERY_MS).unref();
  }

  function takeBack(): void {
    for (const [key, turn] of doubtful) {
      if (asked.has(key)) continue;
      asked.add(key);
      withdraw(turn)
        .then(
          () => doubtful.delete(key),
          () => {},
        )
        .finally(() => asked.delete(key));
    }
  }

  return {
    doubtful,
    withdraw: takeBack,
    async settle({ turn, resumable }, error) {
      const untilMs = performance.now() + (resumable ? RESUMABLE_PATIENCE_MS : PATIENCE_MS);
      while (!closed && performance.now() < untilMs) {
        const found = await ask(turn);
        if (found === null) throw error;
        if (found) return isIt(found, turn, resumable) ? 'stored' : 'duplicate';
        await new Promise((resolve) => setTimeout(resolve, ASK_EVERY_MS));
      }
      // One that goes on from an earlier process was stored before.
      if (!resumable) doubt(turn);
      throw error;
    },
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}

const keyOf = ({ tenantId, taskId }: TurnRecord): string => `${tenantId} ${taskId}`;

/** Whether what is stored is this very turn, and not one of the same id from before. */
const isIt = (found: TurnRecord, turn: TurnRecord, resumable: boolean | undefined): boolean =>
  found.sessionId === turn.sessionId &&
  found.finishedAtMs === undefined &&
  (resumable === true || found.createdAtMs === turn.createdAtMs);
