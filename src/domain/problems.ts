/** What a schema found wrong with a value, as every edge tells it: field by field, or in one text. */
import type { z } from 'zod';
import { shownName } from './request-object.ts';

/** One thing that is wrong. `field` is a path with dots, `rule` the kind of rule that is broken. */
interface Problem {
  readonly field: string;
  readonly rule: string;
  readonly message: string;
}

type Issue = Pick<z.core.$ZodIssue, 'path' | 'code' | 'message'> & { readonly keys?: readonly string[] };
type Found = { readonly issues: readonly Issue[] };

/** Problems of a list that somebody works through, and of a text that somebody reads. */
const MAX_LISTED = 100;
const MAX_IN_TEXT = 5;

/**
 * The first `most` problems, those of unknown fields first: one of them may be what a missing field was to be. `whole` is
 * the field of what is wrong with the value itself.
 */
export function problemsOf({ issues }: Found, whole = '', most = MAX_LISTED): Problem[] {
  const unknown = issues.filter(isUnknownFields).flatMap((issue) => unknownFields(issue, most));
  const others = issues
    .filter((issue) => !isUnknownFields(issue))
    .slice(0, most)
    .map(({ path, code, message }) => ({ field: fieldAt(path, whole), rule: code, message }));
  return [...unknown, ...others].slice(0, most);
}

const fieldAt = (path: readonly PropertyKey[], whole: string): string => path.join('.') || whole;

const isUnknownFields = ({ code }: Issue): boolean => code === 'unrecognized_keys';

/** A problem for each field that an object does not have; `message` has their lines, as request-object.ts writes it. */
function unknownFields({ path, keys = [], message }: Issue, most: number): Problem[] {
  const lines = message.split('\n');
  return keys.slice(0, most).map((key, at) => ({
    field: [...path, shownName(key)].join('.'),
    rule: 'unknown_field',
    message: lines[at] ?? lines[0] ?? message,
  }));
}

/** The same as `field: message; field: message`. */
export const problemText = (found: Found, whole = '', most = MAX_IN_TEXT): string =>
  problemsOf(found, whole, most)
    .map(({ field, message }) => (field === '' ? message : `${field}: ${message}`))
    .join('; ');
