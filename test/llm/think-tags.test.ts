/** Thoughts between tags at the beginning of an answer's content, told from its text however they are split. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ThinkTagScan } from '../../src/llm/completions/think-tags.ts';

/** What the pieces of an answer come to. */
function read(pieces: readonly string[], isBegun = false): { thought: string; text: string } {
  const scan = new ThinkTagScan(isBegun);
  const told = { thought: '', text: '' };
  for (const piece of pieces) {
    const { thought, text } = scan.push(piece);
    told.thought += thought;
    told.text += text;
  }
  const { thought, text } = scan.end();
  return { thought: told.thought + thought, text: told.text + text };
}

const CASES: readonly (readonly [string, string, string, string])[] = [
  ['DeepSeek', '<think>\nLet me see.\n</think>\n\nIt is 42.', 'Let me see.\n', 'It is 42.'],
  ['Gemini', '<thought>One. Two.</thought>Done.', 'One. Two.', 'Done.'],
  ['Magistral', '[THINK]Hm.[/THINK]Yes.', 'Hm.', 'Yes.'],
  ['Kimi', '◁think▷想◁/think▷好', '想', '好'],
  ['Seed', '<seed:think>So.</seed:think> Right.', 'So.', 'Right.'],
  ['capitals', '<Think>So.</THINK>Right.', 'So.', 'Right.'],
  ['blanks before', ' \n\n<think>So.</think>Right.', 'So.', 'Right.'],
  ['no thoughts', '<think>\n\n</think>\n\nRight.', '', 'Right.'],
  ['twice', '<think></think>\n<think>So.</think>Right.', 'So.', 'Right.'],
  ['a tag within', '<think>if a <b> then </thin> </think>Right.', 'if a <b> then </thin> ', 'Right.'],
  ['later, it is text', 'The tag <think>is</think> text.', '', 'The tag <think>is</think> text.'],
  ['behind the thoughts, too', '<think>A</think>B <think>C</think>', 'A', 'B <think>C</think>'],
  ['other tags', '<html>x</html>', '', '<html>x</html>'],
  ['half a tag', '<thin', '', '<thin'],
  ['a longer name', '<thinkers>x', '', '<thinkers>x'],
  ['blanks alone', ' \n ', '', ' \n '],
  ['blanks before text', '\n\nHello.', '', '\n\nHello.'],
  ['cut off within', '<think>So far', 'So far', ''],
  ['cut off within the last tag', '<think>So far</thi', 'So far</thi', ''],
  ['nothing behind', '<think>So.</think>\n\n', 'So.', ''],
  ['a close alone', 'So.</think>Right.', '', 'So.</think>Right.'],
  ['İ before the end', '<think>İİİ</think>İ', 'İİİ', 'İ'],
];

for (const [name, content, thought, text] of CASES)
  test(`${name}: however it is split`, () => {
    assert.deepEqual(read([content]), { thought, text });
    assert.deepEqual(read(content.split('')), { thought, text }, 'unit by unit');
    for (let at = 1; at < content.length; at += 1)
      assert.deepEqual(read([content.slice(0, at), content.slice(at)]), { thought, text }, `split at ${at}`);
  });

test('where a template has written the first tag, thoughts begin at once, with or without it', () => {
  for (const content of [
    'Let me see.</think>\n\n42.',
    '<think>Let me see.</think>42.',
    '\n<think>\nLet me see.</think> 42.',
  ]) {
    assert.deepEqual(read([content], true), { thought: 'Let me see.', text: '42.' });
    assert.deepEqual(read(content.split(''), true), { thought: 'Let me see.', text: '42.' });
  }
  assert.deepEqual(read(['No end'], true), { thought: 'No end', text: '' });
  assert.deepEqual(read(['<th'], true), { thought: '<th', text: '' });
});

test('text comes out as it comes in: nothing is held back once it is plain what it is', () => {
  const scan = new ThinkTagScan(false);
  assert.deepEqual(scan.push('<think>So'), { thought: 'So', text: '' });
  assert.deepEqual(scan.push(' far'), { thought: ' far', text: '' });
  assert.deepEqual(scan.push('.</think>A'), { thought: '.', text: 'A' });
  assert.ok(scan.isOver);
});

test('blanks are held back within a bound', () => {
  assert.equal(new ThinkTagScan(false).push(' '.repeat(2_000)).text.length, 2_000);
});
