/** Which messages the model is given. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { estimateTokens, type Message, type Role, trimHistory } from '../../src/domain/conversation.ts';
import { taskIdSchema } from '../../src/domain/ids.ts';

const said = (role: Role, content: string, turn = 1): Message => ({
  role,
  content,
  taskId: taskIdSchema.parse(`t${turn}`),
  atMs: turn,
});

/** Question and answer, `turns` times, each message of `units` characters, and a last question. */
function talk(turns: number, units = 4): readonly Message[] {
  const messages: Message[] = [];
  for (let turn = 1; turn <= turns; turn += 1)
    messages.push(said('user', 'q'.repeat(units), turn), said('assistant', 'a'.repeat(units), turn));
  return [...messages, said('user', 'q'.repeat(units), turns + 1)];
}

const histories = fc.array(
  fc.record({ role: fc.constantFrom<Role>('user', 'assistant'), content: fc.string({ maxLength: 60 }) }),
  { minLength: 1, maxLength: 40 },
);

test('a history within both limits is given whole, as the same array', () => {
  const messages = talk(3);

  assert.equal(trimHistory(messages, 10, 1_000), messages);
});

test('the newest messages are kept, and never start with an answer whose question was cut', () => {
  const kept = trimHistory(talk(10), 4, 1_000);

  assert.deepEqual(
    kept.map((message) => [message.role, message.taskId]),
    [
      ['user', 't10'],
      ['assistant', 't10'],
      ['user', 't11'],
    ],
  );
});

test('the token budget cuts the oldest first', () => {
  const kept = trimHistory(talk(10, 400), 100, 350);

  assert.deepEqual(
    kept.map((message) => message.taskId),
    ['t10', 't10', 't11'],
  );
});

test('the last message is kept even where it alone is over the budget, or no message is allowed', () => {
  const long = said('user', 'x'.repeat(10_000));

  assert.deepEqual(trimHistory([said('user', 'before'), long], 10, 5), [long]);
  assert.deepEqual(trimHistory([said('user', 'before'), long], 0, 1_000_000), [long]);
});

test('what a failed turn left is not kept, and takes nobody’s place', () => {
  const left: Message = { ...said('assistant', 'Half of'), partial: true };
  const kept = trimHistory(
    [...talk(1).slice(0, 2), said('user', 'again', 2), left, said('user', 'and?', 3)],
    2,
    1_000,
  );
  assert.deepEqual(
    kept.map(({ content }) => content),
    ['again', 'and?'],
  );
});

test('a conversation without messages stays one', () => {
  assert.deepEqual(trimHistory([], 10, 10), []);
});

test('whatever the history: the result is its end, within the limits, starts with a user where it can', () => {
  fc.assert(
    fc.property(
      histories,
      fc.integer({ min: 1, max: 20 }),
      fc.integer({ min: 1, max: 200 }),
      (drafts, most, tokens) => {
        const messages = drafts.map((draft, index) => said(draft.role, draft.content, index));
        const kept = trimHistory(messages, most, tokens);

        assert.deepEqual(kept, messages.slice(messages.length - kept.length));
        assert.ok(kept.length >= 1 && kept.length <= most);
        const spent = kept.reduce((sum, message) => sum + estimateTokens(message.content), 0);
        assert.ok(kept.length === 1 || spent <= tokens);
        assert.ok(kept.length === 1 || kept[0]?.role === 'user');
      },
    ),
  );
});

test('four characters are a token, and nothing is free', () => {
  assert.deepEqual(['', 'a', 'abcd', 'abcde'].map(estimateTokens), [1, 1, 1, 2]);
});
