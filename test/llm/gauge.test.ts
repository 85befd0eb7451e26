/** Which messages of a conversation are left when it has to be shorter. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AIMessage, type BaseMessage, HumanMessage, SystemMessage } from '@langchain/core/messages';
import { createGauge, fitted } from '../../src/llm/completions/gauge.ts';

/** A prompt, then so many exchanges of ten tokens a message, and a last question. */
const talk = (exchanges: number): BaseMessage[] => [
  new SystemMessage('p'.repeat(40)),
  ...Array.from({ length: exchanges }, () => [
    new HumanMessage('q'.repeat(40)),
    new AIMessage('a'.repeat(40)),
  ]).flat(),
  new HumanMessage('l'.repeat(40)),
];

test('what fits stays the same array', () => {
  const messages = talk(3);
  assert.equal(fitted(messages, 80, createGauge()), messages);
});

test('the oldest go, never leaving an answer first; prompt and last question stay, whatever they cost', () => {
  const kept = (tokens: number) => fitted(talk(3), tokens, createGauge()).map(({ type }) => type);
  assert.deepEqual(kept(70), ['system', 'human', 'ai', 'human', 'ai', 'human']);
  assert.deepEqual(kept(45), ['system', 'human', 'ai', 'human']);
  assert.deepEqual(kept(1), ['system', 'human']);
});

test('each message is weighed once, however many have to go', () => {
  let read = 0;
  const messages = talk(500);
  for (const message of messages) {
    const { content } = message;
    Object.defineProperty(message, 'content', {
      get() {
        read += 1;
        return content;
      },
    });
  }
  fitted(messages, 50, createGauge());
  assert.ok(read <= 3 * messages.length, `${read} reads of ${messages.length} messages`);
});

test('what a provider counts sets the estimate right', () => {
  const gauge = createGauge();
  const messages = talk(2);
  const before = gauge.estimate(messages);
  gauge.learn(messages, before * 2);
  assert.equal(gauge.estimate(messages), before * 2);
});
