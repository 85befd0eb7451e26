/** A batch of writes as the fewest statements that keep its order: one for each frequent kind, the rest alone. */
import type { EncodedWrite, OutgoingKey, Row, StoredOutgoing } from '../encode.ts';

/** The statements of a run, in their order; writes that may share one. */
const RUN = ['accepted', 'resumed', 'effects', 'ended', 'sent'] as const;
type RunKind = (typeof RUN)[number];
const RANK: Readonly<Record<RunKind, number>> = { accepted: 0, resumed: 1, effects: 2, ended: 3, sent: 4 };

type RunWrite = Extract<EncodedWrite, { kind: RunKind | 'outgoing' }>;

/**
 * The rows of one statement, and for each the place in the batch of the write that it is of. `resumed`
 * looks once more at those of `accepted` that may go on.
 */
export interface PlanStep {
  readonly kind: RunKind | Exclude<EncodedWrite['kind'], RunWrite['kind']>;
  readonly rows: readonly Row[];
  readonly places: readonly number[];
  /**
   * Of `ended`: the messages that are stored by it, in their order. `end` is the number (from 1) of the row whose turn
   * they are stored with, or 0.
   */
  readonly outgoing: readonly (StoredOutgoing & { readonly end: number })[];
}

/**
 * Writes of different turns and messages may change places, so a run of them becomes one statement of each kind.
 * What touches a turn or a message that a later statement of the run touches starts a new run; so do a second end or
 * resumption of one turn, of which only the first counts, and a new day.
 */
export function planBatch(writes: readonly EncodedWrite[]): readonly PlanStep[] {
  const steps: PlanStep[] = [];
  let run = createRun();
  const cut = (): void => {
    steps.push(...run.steps());
    run = createRun();
  };
  for (const [place, write] of writes.entries()) {
    switch (write.kind) {
      case 'accepted':
      case 'effects':
      case 'ended':
      case 'outgoing':
      case 'sent':
        if (!run.takes(write)) cut();
        run.add(write, place);
        break;
      default:
        cut();
        steps.push({
          kind: write.kind,
          rows: 'row' in write ? [write.row] : [],
          places: [place],
          outgoing: [],
        });
    }
  }
  cut();
  return steps;
}

interface Run {
  /** Whether the write may share the run's statements. */
  takes(write: RunWrite): boolean;
  add(write: RunWrite, place: number): void;
  steps(): readonly PlanStep[];
}

function createRun(): Run {
  const rows: Record<RunKind, Row[]> = { accepted: [], resumed: [], effects: [], ended: [], sent: [] };
  const places: Record<RunKind, number[]> = { accepted: [], resumed: [], effects: [], ended: [], sent: [] };
  const outgoing: (StoredOutgoing & { readonly end: number })[] = [];
  let day: string | undefined;
  /** The last statement of the run that touches a key. Beginnings are the first: they need not be noted. */
  const touched = new Map<string, number>();
  const touchedAfter = (key: string, kind: RunKind): boolean => (touched.get(key) ?? -1) > RANK[kind];

  function put(kind: RunKind, row: Row, place: number): void {
    rows[kind].push(row);
    places[kind].push(place);
  }

  function store(messages: readonly StoredOutgoing[], end: number): void {
    for (const message of messages) {
      touched.set(messageKey(message), RANK.ended);
      outgoing.push({ ...message, end });
    }
  }

  return {
    takes(write) {
      switch (write.kind) {
        case 'accepted':
          if (day !== undefined && day !== write.row.day) return false;
          return !touchedAfter(turnKey(write.row), write.resumable ? 'accepted' : 'resumed');
        case 'effects':
          return !touchedAfter(turnKey(write.row), 'effects');
        case 'ended':
          if (touchedAfter(turnKey(write.row), 'effects')) return false;
          return !write.outgoing.some((each) => touchedAfter(messageKey(each), 'ended'));
        case 'outgoing':
          return !write.outgoing.some((each) => touchedAfter(messageKey(each), 'ended'));
        case 'sent':
          return true;
      }
    },
    add(write, place) {
      switch (write.kind) {
        case 'accepted':
          day = write.row.day;
          put('accepted', write.row, place);
          if (!write.resumable) return;
          touched.set(turnKey(write.row), RANK.resumed);
          put('resumed', write.row, place);
          return;
        case 'effects':
          touched.set(turnKey(write.row), RANK.effects);
          put('effects', write.row, place);
          return;
        case 'ended':
          touched.set(turnKey(write.row), RANK.ended);
          put('ended', write.row, place);
          store(write.outgoing, rows.ended.length);
          return;
        case 'outgoing':
          store(write.outgoing, 0);
          return;
        case 'sent':
          for (const key of write.sent) {
            touched.set(messageKey(key), RANK.sent);
            put('sent', key, place);
          }
      }
    },
    steps: () =>
      RUN.map((kind) => ({
        kind,
        rows: rows[kind],
        places: places[kind],
        outgoing: kind === 'ended' ? outgoing : [],
      })).filter((step) => step.rows.length > 0 || step.outgoing.length > 0),
  };
}

/** Ids hold no spaces; no message's key is like a turn's. */
export const turnKey = ({ tenant_id, task_id }: Row): string => `${tenant_id} ${task_id}`;
const messageKey = ({ tenant_id, id }: OutgoingKey): string => `>${tenant_id} ${id}`;
