/** A batch of writes as the fewest statements that keep its order: one for each frequent kind, the rest alone. */
import type { EncodedWrite, Param } from '../encode.ts';

/**
 * Writes that one statement carries out; `members` are their places in the batch. `ended` takes writes that only keep
 * outgoing messages along; `resumed` looks once more at those of `accepted` that may go on.
 */
export interface PlanStep {
  readonly kind: EncodedWrite['kind'] | 'resumed';
  readonly members: readonly number[];
}

/** Where tenant and task stand in the parameters of `accepted` (and `effects`), and of `ended`. */
const ACCEPTED_KEY = [0, 1] as const;
const ENDED_KEY = [10, 11] as const;

const ACCEPTED_DAY = 10;

/** The statements of a run, in their order; writes that may share one. */
const RUN = ['accepted', 'resumed', 'effects', 'ended', 'sent'] as const;
type Place = (typeof RUN)[number];
const RANK: Readonly<Record<Place, number>> = { accepted: 0, resumed: 1, effects: 2, ended: 3, sent: 4 };

/**
 * Writes of different turns and messages may change places, so a run of them becomes one statement of each kind.
 * What touches a turn or a message that a later statement of the run touches starts a new run; so do a second end or
 * resumption of one turn, of which only the first counts, and a new day.
 */
export function planBatch(writes: readonly EncodedWrite[]): readonly PlanStep[] {
  const steps: PlanStep[] = [];
  let run: Record<Place, number[]> = emptyRun();
  /** The last statement of the run that touches a key. Beginnings are the first: they need not be noted. */
  const touched = new Map<string, number>();

  const cut = (): void => {
    for (const kind of RUN) if (run[kind].length > 0) steps.push({ kind, members: run[kind] });
    run = emptyRun();
    touched.clear();
  };

  const touchedAfter = (key: string, rank: number): boolean => (touched.get(key) ?? -1) > rank;
  const note = (keys: readonly string[], rank: number): void => {
    for (const key of keys) touched.set(key, rank);
  };

  for (const [index, write] of writes.entries()) {
    switch (write.kind) {
      case 'accepted': {
        const first = writes[run.accepted[0] ?? index];
        const key = keyOf(write, ACCEPTED_KEY);
        const newDay = first?.params[ACCEPTED_DAY] !== write.params[ACCEPTED_DAY];
        if (newDay || touchedAfter(key, write.again ? RANK.accepted : RANK.resumed)) cut();
        run.accepted.push(index);
        if (!write.again) break;
        note([key], RANK.resumed);
        run.resumed.push(index);
        break;
      }
      case 'effects': {
        const key = keyOf(write, ACCEPTED_KEY);
        if (touchedAfter(key, RANK.effects)) cut();
        note([key], RANK.effects);
        run.effects.push(index);
        break;
      }
      case 'ended':
      case 'outgoing': {
        const turn = write.kind === 'ended' ? [keyOf(write, ENDED_KEY)] : [];
        const ids = idsOf(write.outgoing);
        const [early, late] = [RANK.effects, RANK.ended];
        if (turn.some((key) => touchedAfter(key, early)) || ids.some((key) => touchedAfter(key, late))) cut();
        note(turn, RANK.ended);
        note(ids, RANK.ended);
        run.ended.push(index);
        break;
      }
      case 'sent':
        note(idsOf(pairsOf(write.params)), RANK.sent);
        run.sent.push(index);
        break;
      default:
        cut();
        steps.push({ kind: write.kind, members: [index] });
    }
  }
  cut();
  return steps;
}

const emptyRun = (): Record<Place, number[]> => ({
  accepted: [],
  resumed: [],
  effects: [],
  ended: [],
  sent: [],
});

/** Keys of outgoing messages, by their first two columns; no turn's key is like them. */
const idsOf = (rows: readonly (readonly Param[])[] = []): readonly string[] =>
  rows.map(([tenant, id]) => `>${tenant} ${id}`);

/** The messages of a `sent`, tenant and id each. */
export const pairsOf = (params: readonly Param[]): readonly (readonly Param[])[] =>
  Array.from({ length: params.length / 2 }, (_, at) => params.slice(at * 2, at * 2 + 2));

/** Ids hold no spaces. */
const keyOf = ({ params }: EncodedWrite, [tenant, task]: readonly [number, number]): string =>
  `${params[tenant]} ${params[task]}`;

/** The members' parameters, one array a column, as `unnest` takes them. */
export function columnsOf(
  writes: readonly EncodedWrite[],
  members: readonly number[],
  width: number,
): readonly (readonly Param[])[] {
  return transposed(
    members.map((member) => writes[member]?.params ?? []),
    width,
  );
}

/** Rows as one array a column. */
export const transposed = (
  rows: readonly (readonly Param[])[],
  width: number,
): readonly (readonly Param[])[] =>
  Array.from({ length: width }, (_, column) => rows.map((row) => row[column] ?? null));

/** Those of the members that end a turn: `ended` may hold others. */
export const endsOf = (writes: readonly EncodedWrite[], step: PlanStep): readonly number[] =>
  step.members.filter((member) => writes[member]?.kind === 'ended');

/** The outgoing messages of an `ended` in their order, behind each the place (from 1) of its end among `endsOf`, or 0. */
export function outgoingOf(writes: readonly EncodedWrite[], step: PlanStep): readonly (readonly Param[])[] {
  let place = 0;
  return step.members.flatMap((member) => {
    const write = writes[member];
    if (write?.kind === 'ended') place += 1;
    return (write?.outgoing ?? []).map((row) => [...row, write?.kind === 'ended' ? place : 0]);
  });
}

/**
 * Outcomes of accepted turns, given the keys (`tenant task`) that were stored: of several with one key it was the
 * first. 1: stored, 0: duplicate.
 */
export function acceptedOutcomes(
  writes: readonly EncodedWrite[],
  step: PlanStep,
  stored: Set<string>,
): readonly number[] {
  return step.members.map((member) => {
    const write = writes[member];
    return write && stored.delete(keyOf(write, ACCEPTED_KEY)) ? 1 : 0;
  });
}
