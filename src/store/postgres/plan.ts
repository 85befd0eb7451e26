/** A batch of writes as the fewest statements that keep its order: turns that begin, turns that end, the rest alone. */
import type { EncodedWrite, Param } from '../encode.ts';

/** Writes of one kind that one statement carries out; `members` are their places in the batch. */
export interface Step {
  readonly kind: EncodedWrite['kind'];
  readonly members: readonly number[];
}

/** Where tenant and task stand in the parameters of `accepted` and of `ended`. */
const ACCEPTED_KEY = [0, 1] as const;
const ENDED_KEY = [10, 11] as const;

const ACCEPTED_DAY = 10;

/**
 * Beginnings and ends of different turns may change places, so a run of both becomes two statements. A beginning
 * that follows an end of the same turn, a second end of one turn, and a new day start a new run.
 */
export function planBatch(writes: readonly EncodedWrite[]): readonly Step[] {
  const steps: Step[] = [];
  let accepted: number[] = [];
  let ended: number[] = [];
  const ends = new Set<string>();

  const dayOf = (index: number | undefined): Param | undefined => writes[index ?? -1]?.params[ACCEPTED_DAY];
  const cut = (): void => {
    if (accepted.length > 0) steps.push({ kind: 'accepted', members: accepted });
    if (ended.length > 0) steps.push({ kind: 'ended', members: ended });
    accepted = [];
    ended = [];
    ends.clear();
  };

  for (const [index, write] of writes.entries()) {
    if (write.kind === 'accepted') {
      const newDay = accepted.length > 0 && dayOf(accepted[0]) !== dayOf(index);
      if (newDay || ends.has(keyOf(write, ACCEPTED_KEY))) cut();
      accepted.push(index);
    } else if (write.kind === 'ended') {
      const key = keyOf(write, ENDED_KEY);
      if (ends.has(key)) cut();
      ends.add(key);
      ended.push(index);
    } else {
      cut();
      steps.push({ kind: write.kind, members: [index] });
    }
  }
  cut();
  return steps;
}

/** Ids hold no spaces. */
const keyOf = ({ params }: EncodedWrite, [tenant, task]: readonly [number, number]): string =>
  `${params[tenant]} ${params[task]}`;

/** The members' parameters, one array a column, as `unnest` takes them. */
export function columnsOf(writes: readonly EncodedWrite[], step: Step): readonly (readonly Param[])[] {
  const width = writes[step.members[0] ?? 0]?.params.length ?? 0;
  return Array.from({ length: width }, (_, column) =>
    step.members.map((member) => writes[member]?.params[column] ?? null),
  );
}

/**
 * Outcomes of accepted turns, given the keys (`tenant task`) that were stored: of several with one key it was the
 * first. 1: stored, 0: duplicate.
 */
export function acceptedOutcomes(
  writes: readonly EncodedWrite[],
  step: Step,
  stored: Set<string>,
): readonly number[] {
  return step.members.map((member) => {
    const write = writes[member];
    return write && stored.delete(keyOf(write, ACCEPTED_KEY)) ? 1 : 0;
  });
}
