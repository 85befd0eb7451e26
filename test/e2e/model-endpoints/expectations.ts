/** What answers are put together from, and what is expected of a turn that gets them. */
import assert from 'node:assert/strict';
import { CALLS, choice, DONE, line, STOP, TEXT, USAGE } from '../../support/stub-model.ts';
import type { EndpointCase } from './cases.ts';

/** At least and at most this many. */
export type Count = number | readonly [number, number];

export interface Answered {
  readonly type: 'answered';
  readonly content: string | RegExp;
  readonly tokens?: Count | undefined;
  /** Requests that the endpoint saw in this turn. */
  readonly requests?: Count | undefined;
  /** Results of the tools that ran, in order of their calls. */
  readonly results?: readonly string[] | undefined;
}

export interface Failed {
  readonly type: 'failed';
  readonly codes: readonly string[];
  readonly retryable?: boolean | undefined;
  readonly message?: RegExp | undefined;
  readonly requests?: Count | undefined;
  /** Text that was shown before. */
  readonly shown?: string | undefined;
  /** In the warning for the operator, as JSON. */
  readonly warning?: RegExp | undefined;
  /** Exactly one warning, not at least one. */
  readonly once?: boolean | undefined;
}

export type Expected = Answered | Failed;

export const answered = (
  content: string | RegExp,
  more: Omit<Answered, 'type' | 'content'> = {},
): Answered => ({
  type: 'answered',
  content,
  ...more,
});

/** Without `retryable`, either will do. */
export const failed = (
  codes: string | readonly string[],
  more: Omit<Failed, 'type' | 'codes'> = {},
): Failed => ({
  type: 'failed',
  codes: typeof codes === 'string' ? [codes] : codes,
  ...more,
});

export const said = (content: string): string => line(choice({ content }));
export const ends = (finish: unknown): string => line(choice({}, finish));
export const SOUND = TEXT + STOP + USAGE + DONE;
export const sound = (content: string): string => said(content) + STOP + USAGE + DONE;

/** The sound answer, whole and counted. */
export const ALL: Answered = answered('All of it.', { tokens: 110, requests: 1 });
/** The same where nobody counted. */
export const UNCOUNTED: Answered = answered('All of it.', { tokens: [1, 10_000], requests: 1 });
/** Codes of an answer that cannot be used. */
export const EITHER = ['MODEL_ERROR', 'MODEL_UNAVAILABLE'];
/** Text was shown, then the model failed: it is not asked again. */
export const BROKEN: Failed = failed(EITHER, { retryable: true, shown: 'Half of', requests: 1 });
/** Nothing was shown: asked again or not. */
export const UNREADABLE: Failed = failed(EITHER, { retryable: true, requests: [1, 3] });

/** A message that calls the calculator with these arguments. */
export function callOf(args: string): string {
  const call = { index: 0, id: 'c1', type: 'function', function: { name: 'calculator', arguments: args } };
  return line(choice({ role: 'assistant', tool_calls: [call] })) + CALLS + USAGE + DONE;
}
export const SUM = callOf('{"expression":"6*7"}');
/** What comes of it. */
export const CALCULATED: Answered = answered('Tools said: 42', { tokens: 220, requests: 2, results: ['42'] });

/** The turn did not wait for an endpoint that fell silent, and the connection was let go. */
export const letGo: NonNullable<EndpointCase['also']> = async ({ tookMs, stub, requests }) => {
  assert.ok(tookMs < 8_000, `the turn took ${Math.round(tookMs)} ms`);
  await stub.closedByClient(requests[0]?.index ?? 0);
};
export const hang = { end: 'hang' } as const;
