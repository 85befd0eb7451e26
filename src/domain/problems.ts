/** What a schema found wrong with a value, as every edge tells it: field by field, or in one text. */
import type { z } from 'zod';

/** One thing that is wrong. `field` is a path with dots, `rule` the kind of rule that is broken. */
interface Problem {
  readonly field: string;
  readonly rule: string;
  readonly message: string;
}

type Found = { readonly issues: readonly Pick<z.core.$ZodIssue, 'path' | 'code' | 'message'>[] };

/** Problems of a list that somebody works through, and of a text that somebody reads. */
const MAX_LISTED = 100;
const MAX_IN_TEXT = 5;

/** The first `most` problems. `whole` is the field of what is wrong with the value itself. */
export const problemsOf = ({ issues }: Found, whole = '', most = MAX_LISTED): Problem[] =>
  issues
    .slice(0, most)
    .map(({ path, code, message }) => ({ field: path.join('.') || whole, rule: code, message }));

/** The same as `field: message; field: message`. */
export const problemText = (found: Found, whole = '', most = MAX_IN_TEXT): string =>
  problemsOf(found, whole, most)
    .map(({ field, message }) => (field === '' ? message : `${field}: ${message}`))
    .join('; ');
