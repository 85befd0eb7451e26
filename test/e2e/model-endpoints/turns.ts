/** Refusals and plain turns, for tests of several turns. */
import assert from 'node:assert/strict';
import type { Chatter } from '../../support/chatter.ts';
import { errorAnswer } from '../../support/picky-endpoint.ts';
import type { Scenario, StubBody } from '../../support/stub-model.ts';
import { checkAnswered, checkFrames, type Part, partOf, type Stage } from './cases.ts';
import { answered } from './expectations.ts';

export const refusal = (message: string, more: object = {}, status = 400): Scenario =>
  errorAnswer(status, { message, type: 'invalid_request_error', param: null, code: null, ...more });
export const lengthOf = ({ messages }: StubBody): number =>
  messages.reduce((sum, { content }) => sum + (typeof content === 'string' ? content.length : 0), 0);

/** A model of the case's own (`*` is replaced): what a node learns of one is no help with the next. */
export const ownModel = (more: Readonly<Record<string, unknown>> = {}) => ({
  model: 'house-model-*',
  ...more,
});

/** This many words. */
export const words = (count: number): string => 'CANARY '.repeat(count);

/** Says something to the part of this mark, on the default agent. */
export const say = (client: Chatter, mark: string, text = 'CANARY-user asks.') =>
  client.turn(`${text} <<${mark}>>`);

/** The next plain turn is answered at the picky endpoint. */
export async function goesOn(stage: Stage, client: Chatter, mark: string): Promise<Part> {
  const part = partOf(stage, mark);
  const frames = await say(client, mark);
  assert.deepEqual(part.broken, []);
  checkFrames(frames);
  checkAnswered(frames, part, answered('All of it.'));
  return part;
}
