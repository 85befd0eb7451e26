/** Tells services from strangers: the one token of `/internal/*` and `/ws/task_updates`. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { type ErrorData, refusal } from '../src/domain/errors.ts';

/** What is told where the operator has set no SERVICE_TOKEN: nobody is a service then. */
export const NO_SERVICE_TOKEN: ErrorData = refusal('FORBIDDEN', {
  message: 'This node takes no services: set SERVICE_TOKEN (at least 16 characters) to let them in.',
});

/** Makes the comparison. It takes the same time wherever two tokens differ, and whatever their lengths. */
export function createServiceCheck(token: string): (given: string) => boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  const expected = digest(token);
  return (given) => timingSafeEqual(digest(given), expected);
}
