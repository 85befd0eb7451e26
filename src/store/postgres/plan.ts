/** A batch of writes as the fewest statements that keep its order: one for each frequent kind, the rest alone. */
import type { EncodedWrite, OutgoingKey, Row, StoredOutgoing } from '../encode.ts';

/** The statements of a run, in their order; writes that may share one. */
const RUN = ['accepted', 'resumed', 'effects', 'ended', 'sent', 'released'] as const;
type RunKind = (typeof RUN)[number];
const RANK: Readonly<Record<RunKind, number>> = {
  ...{ accepted: 0, resumed: 1, effects: 2, ended: 3, sent: 4, released: 5 },
};

type RunWrite = Extract<EncodedWrite, { kind: RunKind | 'outgoing' }>;

/**
 * The rows of one statement, and for each the place in the batch of the write that it is of. `resumed`
 * looks once more at those of `accepted` that may go on.
 */
export interface PlanStep {
  readonly kind: RunKind | Exclude<EncodedWrite['kind'], RunWrite['kind']> | 'counting' | 'acceptedWithin';
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
 * resumption of one turn, of which only the first counts, a new day, and another limit of a tenant's day. Where a day
 * has a limit, its count is taken first (`counting`), so that it can be looked at and kept by the beginnings.
 */
export function planBatch(writes: readonly EncodedWrite[]): readonly PlanStep[] {
  const steps: PlanStep[] = [];
  let run = createRun();
  const cut = (): void => {
    steps.push(...stepsOf(run));
    run = createRun();
  };
  for (const [place, write] of writes.entries()) {
    switch (write.kind) {
      case 'accepted':
      case 'effects':
      case 'ended':
      case 'outgoing':
      case 'sent':
      case 'released':
        if (!takes(run, write)) cut();
        add(run, write, place);
        break;
      default: {
        cut();
        const rows = 'row' in write ? [write.row] : [];
        steps.push({ kind: write.kind, rows, places: [place], outgoing: [] });
      }
    }
  }
  cut();
  const counted = countedDays(writes);
  return counted.length > 0
    ? [{ kind: 'counting', rows: counted, places: [], outgoing: [] }, ...steps]
    : steps;
}

/** The tenants and days whose count has a limit, each once. */
function countedDays(writes: readonly EncodedWrite[]): readonly Row[] {
  const days = new Map<string, Row>();
  for (const write of writes) {
    if (write.kind !== 'accepted' || write.row.most === null) continue;
    const { tenant_id, day } = write.row;
    days.set(`${tenant_id} ${day}`, { tenant_id, day });
  }
  return [...days.values()];
}

interface Run {
  day: string | undefined;
  /** By tenant: how many its day may count. */
  readonly most: Map<string, number | null>;
  isWithin: boolean;
  /** The last statement of the run that touches a key. Beginnings are the first: they need not be noted. */
  readonly touched: Map<string, number>;
  readonly rows: Readonly<Record<RunKind, Row[]>>;
  readonly places: Readonly<Record<RunKind, number[]>>;
  readonly outgoing: PlanStep['outgoing'][number][];
}

const createRun = (): Run => ({
  day: undefined,
  most: new Map(),
  isWithin: false,
  touched: new Map(),
  rows: { accepted: [], resumed: [], effects: [], ended: [], sent: [], released: [] },
  places: { accepted: [], resumed: [], effects: [], ended: [], sent: [], released: [] },
  outgoing: [],
});

/** Whether the write may share the run's statements. */
function takes({ day, most, touched }: Run, write: RunWrite): boolean {
  const touchedAfter = (key: string, kind: RunKind): boolean => (touched.get(key) ?? -1) > RANK[kind];
  const hasLaterMessage = (messages: readonly StoredOutgoing[]): boolean =>
    messages.some((each) => touchedAfter(messageKey(each), 'ended'));
  switch (write.kind) {
    case 'accepted':
      if (day !== undefined && day !== write.row.day) return false;
      if (most.has(write.row.tenant_id) && most.get(write.row.tenant_id) !== write.row.most) return false;
      if (touched.has(sessionKey(write.row))) return false;
      return !touchedAfter(turnKey(write.row), write.resumable ? 'accepted' : 'resumed');
    case 'effects':
      return !touchedAfter(turnKey(write.row), 'effects');
    case 'ended':
      return !touchedAfter(turnKey(write.row), 'effects') && !hasLaterMessage(write.outgoing);
    case 'outgoing':
      return !hasLaterMessage(write.outgoing);
    case 'sent':
    case 'released':
      return true;
  }
}

function add(run: Run, write: RunWrite, place: number): void {
  const put = (kind: RunKind, row: Row): void => {
    run.rows[kind].push(row);
    run.places[kind].push(place);
  };
  const touch = (key: string, kind: RunKind): void => void run.touched.set(key, RANK[kind]);
  const store = (messages: readonly StoredOutgoing[], end: number): void => {
    for (const message of messages) {
      touch(messageKey(message), 'ended');
      run.outgoing.push({ ...message, end });
    }
  };
  switch (write.kind) {
    case 'accepted':
      run.day = write.row.day;
      run.most.set(write.row.tenant_id, write.row.most);
      run.isWithin ||= write.row.most !== null;
      put('accepted', write.row);
      if (!write.resumable) return;
      touch(turnKey(write.row), 'resumed');
      put('resumed', write.row);
      return;
    case 'effects':
      touch(turnKey(write.row), 'effects');
      put('effects', write.row);
      return;
    case 'ended':
      touch(turnKey(write.row), 'ended');
      put('ended', write.row);
      store(write.outgoing, run.rows.ended.length);
      return;
    case 'outgoing':
      store(write.outgoing, 0);
      return;
    case 'sent':
      for (const key of write.sent) {
        touch(messageKey(key), 'sent');
        put('sent', key);
      }
      return;
    case 'released':
      touch(sessionKey(write.row), 'released');
      put('released', write.row);
  }
}

const stepsOf = ({ rows, places, outgoing, isWithin }: Run): readonly PlanStep[] =>
  RUN.map((kind) => ({
    kind: kind === 'accepted' && isWithin ? ('acceptedWithin' as const) : kind,
    rows: rows[kind],
    places: places[kind],
    outgoing: kind === 'ended' ? outgoing : [],
  })).filter((step) => step.rows.length > 0 || step.outgoing.length > 0);

/** Ids hold no spaces; no message's or session's key is like a turn's. */
const sessionKey = ({ tenant_id, session_id }: Row): string => `@${tenant_id} ${session_id}`;
export const turnKey = ({ tenant_id, task_id }: Row): string => `${tenant_id} ${task_id}`;
const messageKey = ({ tenant_id, id }: OutgoingKey): string => `>${tenant_id} ${id}`;
