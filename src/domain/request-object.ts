/** Objects as requests write them: null is absence, and a field that nobody knows is refused by its name. */
import { z } from 'zod';
import { withoutNulls } from './defined.ts';
import { slips } from './slips.ts';

/** Unknown fields that one refusal names; a body may bring tens of thousands. */
const MAX_NAMED = 100;
/** Units of a name that are shown, and that are compared with known names. */
const MAX_NAME_UNITS = 64;

/**
 * An object of these fields and no others, null being a value like others. Its one issue of code `unrecognized_keys` has
 * a line of `message` for each of its first keys: problems.ts makes a problem of each.
 */
export function strictObject<S extends z.core.$ZodLooseShape>(shape: S) {
  const known = Object.keys(shape);
  return z.strictObject(shape, {
    error(issue) {
      if (issue.code !== 'unrecognized_keys') return undefined;
      const keys: readonly string[] = issue.keys;
      return keys
        .slice(0, MAX_NAMED)
        .map((key) => unknownField(key, known))
        .join('\n');
    },
  });
}

/** The same, where null stands for a field that is absent. */
export const requestObject = <S extends z.core.$ZodLooseShape>(shape: S) =>
  z.preprocess(withoutNulls, strictObject(shape));

/** A list of `least` to `most` items. One that is longer is refused for that alone: none of its items is looked at. */
export const boundedArray = <T extends z.ZodType>(item: T, most: number, least = 0) =>
  z.preprocess(
    within(most, (value) => (Array.isArray(value) ? value.length : 0)),
    z.array(item).min(least).max(most),
  );

/** A record of at most `most` entries, refused in the same way. */
export const boundedRecord = <T extends z.ZodType>(key: z.ZodString, value: T, most: number) =>
  z.preprocess(
    within(most, (given) => (typeof given === 'object' && given !== null ? Object.keys(given).length : 0)),
    z.record(key, value),
  );

const within =
  (most: number, sizeOf: (value: unknown) => number) =>
  (value: unknown, context: z.core.$RefinementCtx): unknown => {
    if (sizeOf(value) > most) context.addIssue(`must have at most ${most} entries`);
    return value;
  };

/** What is told about a field that is none of the known ones: the one that was meant, where one is near. */
export function unknownField(name: string, known: readonly string[], what = 'is not a field here'): string {
  const near = nearest(name, known);
  return near === undefined ? what : `${what}; did you mean \`${near}\`?`;
}

/** A name as a refusal shows it. */
export const shownName = (name: string): string =>
  name.length > MAX_NAME_UNITS ? `${name.slice(0, MAX_NAME_UNITS)}…` : name;

/** The known name that is written alike, else begins alike, else is at most two slips away. */
function nearest(name: string, known: readonly string[]): string | undefined {
  if (name.length > MAX_NAME_UNITS) return undefined;
  const plain = plainName(name);
  const ranked = known
    .map((each) => ({ each, rank: distance(plain, plainName(each)) }))
    .sort((one, other) => one.rank - other.rank);
  const best = ranked[0];
  return best && best.rank <= 2 ? best.each : undefined;
}

/** `sessionId` and `session-id` are `session_id` in another spelling. */
const plainName = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]/g, '');

/** How far apart two names are: 0 the same, 1.5 one begins the other (behind those one slip away), else slips; Infinity where most letters differ. */
function distance(name: string, known: string): number {
  if (name === known) return 0;
  const [short, long] = name.length < known.length ? [name, known] : [known, name];
  if (short.length >= 4 && long.startsWith(short)) return 1.5;
  const count = slips(name, known);
  return count * 3 <= Math.max(name.length, known.length) ? count : Number.POSITIVE_INFINITY;
}
