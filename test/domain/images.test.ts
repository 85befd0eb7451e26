/** Images beside a message: which a model can be given, and what the conversation holds of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { imagesSchema, imageUrls, marked } from '../../src/domain/images.ts';

const PNG =
  'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const GOOD = [
  'https://example.com/a.png?size=1',
  PNG,
  'data:image/jpeg;base64,/9j/4AAQ',
  'data:image/gif;base64,R0lGODlh',
  'data:image/webp;base64,UklGRiQA',
];
const problems = (images: unknown): readonly string[] =>
  imagesSchema.safeParse(images).error?.issues.map(({ path, message }) => `${path.join('.')} ${message}`) ??
  [];

test('addresses of the public web and small files are taken, in either form', () => {
  for (const url of GOOD) {
    assert.deepEqual(problems([url]), []);
    assert.deepEqual(imageUrls(imagesSchema.parse([{ url }])), [url]);
  }
  assert.equal(imageUrls([]), undefined);
  assert.equal(imageUrls(undefined), undefined);
});

test('what no model may be given is refused, each by its place', () => {
  const wrong: readonly [string, RegExp][] = [
    ['http://example.com/a.png', /https/],
    ['https://127.0.0.1/a.png', /IP address/],
    ['https://0x7f.1/', /IP address/],
    ['https://2130706433/', /IP address/],
    ['https://[::1]/a.png', /IP address/],
    ['https://localhost/a.png', /public host/],
    ['https://metadata.google.internal/', /public host/],
    ['https://me:secret@example.com/', /password/],
    ['file:///etc/passwd', /https/],
    ['javascript:alert(1)', /https/],
    ['a.png', /absolute/],
    ['', /absolute/],
    [`https://example.com/${'a'.repeat(2_048)}`, /2048/],
    ['data:image/svg+xml;base64,PHN2Zz4=', /png, jpeg/],
    ['data:text/html;base64,iVBORw0KGgo=', /png, jpeg/],
    ['DATA:image/png;base64,iVBORw0KGgo=', /png, jpeg/],
    ['data:image/png,raw', /base64/],
    ['data:image/png;base64,', /base64/],
    ['data:image/png;base64,iVBORw0KGgo', /no image\/png/],
    ['data:image/png;base64,/9j/4AAQ', /no image\/png/],
    [`${PNG}\n`, /base64/],
    [`data:image/png;base64,iVBORw0KGgo${' '.repeat(5)}`, /base64/],
  ];
  for (const [url, expected] of wrong) {
    assert.match(problems([GOOD[0], url]).join(), expected, url.slice(0, 60));
    assert.match(problems([GOOD[0], url])[0] ?? '', /^1 /);
    assert.match(problems([{ url }])[0] ?? '', /^0\.url /);
  }
});

test('other shapes, too many and too much are refused', () => {
  for (const images of ['x', {}, 7, [7], [null], [{}], [{ url: 7 }], [{ url: PNG, detail: 'high' }], [[PNG]]])
    assert.notDeepEqual(problems(images), [], JSON.stringify(images));
  assert.match(problems(Array.from({ length: 5 }, () => PNG)).join(), /4/);
  const large = `data:image/gif;base64,R0lG${'AAAA'.repeat(40_000)}`;
  assert.match(problems([large.replace('R0lGAAAA', 'R0lGODlh'), large]).join(), /262144 characters together/);
});

test('no value from outside breaks the reading of it', () => {
  fc.assert(fc.property(fc.jsonValue(), (value) => void imagesSchema.safeParse([value, { url: value }])));
});

test('the conversation holds a marker for each', () => {
  assert.equal(marked('Look.'), 'Look.');
  assert.equal(marked('Look.', []), 'Look.');
  assert.equal(marked('Look.', ['a', 'b']), 'Look.\n[image] [image]');
});
