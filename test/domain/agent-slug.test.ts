/** Slugs out of names. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SLUG_PATTERN } from '../../src/domain/agent-record.ts';
import { slugOf, suffixed } from '../../src/domain/slug.ts';

for (const [name, slug] of [
  ['Sales Assistant', 'sales-assistant'],
  ['  --Ærø & Straße-- ', 'aero-strasse'],
  ['Łódź 24/7', 'lodz-24-7'],
  ['Ａgent', 'agent'],
  ['客服', 'agent'],
  ['x', 'agent-x'],
  ['a'.repeat(80), 'a'.repeat(50)],
] as const)
  test(`${name.slice(0, 20)} becomes ${slug.slice(0, 20)}`, () => assert.equal(slugOf(name), slug));

test('whatever the name, a slug comes out, with a suffix too', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), fc.integer({ min: 2, max: 999 }), (name, number) => {
      assert.match(slugOf(name), SLUG_PATTERN);
      const numbered = suffixed(slugOf(name), String(number));
      assert.match(numbered, SLUG_PATTERN);
      assert.ok(numbered.endsWith(`-${number}`));
    }),
  );
});
