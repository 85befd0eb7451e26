/** Collections: what is found in folders of texts, what never is, and what a hostile folder or question can not do. */
import assert from 'node:assert/strict';
import { mkdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import { createCollections } from '../../src/llm/retrieval/collections.ts';
import { piecesOf } from '../../src/llm/retrieval/passages.ts';
import { createSearchIndex, type SearchIndexOptions } from '../../src/llm/retrieval/search-index.ts';
import { leakFree } from '../support/leaks.ts';
import { quiet } from '../support/quiet.ts';
import { temporary } from '../support/temporary.ts';
import { refusedWith } from '../support/transport.ts';

const acme = tenantIdSchema.parse('acme');

/** A root for collections, and how files come into it. */
function folderFor(t: TestContext) {
  const root = temporary(t).path('collections');
  return {
    root,
    write(path: string, text: string): void {
      const full = `${root}/${path}`;
      mkdirSync(full.slice(0, full.lastIndexOf('/')), { recursive: true });
      writeFileSync(full, text);
    },
  };
}

const indexOver = (root: string, more: Partial<SearchIndexOptions> = {}) =>
  createSearchIndex({ root, readMs: 60_000, now: () => performance.now(), ...more });

const ask = (text: string, more = {}) => ({
  ...{ tenant: 'acme', collections: ['docs'], text, limit: 5 },
  ...more,
});
const sources = (reply: ReturnType<ReturnType<typeof createSearchIndex>['query']>): readonly string[] =>
  reply.type === 'found' ? reply.passages.map(({ source }) => source) : [reply.type];

test('a text is cut on its paragraphs, under its headings, and nothing of it is lost', () => {
  const text = `# Title\n\n## Returns ##\n\nFirst.\n\nSecond.\n## Shipping\r\n\r\n${'Long sentence here. '.repeat(200)}`;
  const pieces = piecesOf(text);
  assert.deepEqual(pieces[0], { heading: 'Returns', text: '## Returns ##\n\nFirst.\n\nSecond.' });
  assert.ok(pieces.length > 3);
  for (const { heading, text: part } of pieces.slice(1)) {
    assert.equal(heading, 'Shipping');
    assert.ok(part.length <= 1_500 && part.endsWith('.'), part);
  }
});

test('every text is cut into pieces of bounded length that hold all its words', () => {
  const words = (text: string): string => text.replace(/\s/g, '');
  const plain = fc.string({
    unit: fc.constantFrom('a', 'é', ' ', '\n', '\n\n', '.', '😀'),
    maxLength: 5_000,
  });
  fc.assert(
    fc.property(plain, (text) => {
      const pieces = piecesOf(text);
      assert.ok(pieces.every((piece) => piece.text.length <= 1_500));
      assert.equal(words(pieces.map((piece) => piece.text).join('')), words(text));
    }),
    { numRuns: 200 },
  );
});

test('passages are found by words, without accents, by their beginning, and with a letter wrong', (t) => {
  const { root, write } = folderFor(t);
  write('acme/docs/envios.md', '# Envíos\n\nLa devolución es gratuita durante treinta días.');
  write('acme/docs/prices.txt', 'The subscription costs ten euros a month.');
  const index = indexOver(root);

  assert.deepEqual(sources(index.query(ask('DEVOLUCION'))), ['envios.md › Envíos']);
  assert.deepEqual(sources(index.query(ask('subscri'))), ['prices.txt']);
  assert.deepEqual(sources(index.query(ask('subscrption price'))), ['prices.txt']);
  assert.deepEqual(sources(index.query(ask('envios'))), ['envios.md › Envíos']);
  assert.deepEqual(sources(index.query(ask('zebra'))), []);
  assert.deepEqual(sources(index.query(ask('?! …'))), []);
  assert.deepEqual(sources(index.query(ask('costs', { collections: [] }))), []);
});

test('collections are searched together, each once, best first, no more than asked for', (t) => {
  const { root, write } = folderFor(t);
  for (let n = 0; n < 8; n += 1) write(`acme/docs/f${n}.md`, `Refund number ${n}.`);
  write('acme/faq/a.md', 'Refund, refund, refund.');
  const reply = indexOver(root).query(
    ask('refund', { collections: ['docs', 'faq', 'docs', 'none'], limit: 3 }),
  );

  assert.equal(reply.type, 'found');
  if (reply.type !== 'found') return;
  const scores = reply.passages.map(({ score }) => score);
  assert.equal(scores.length, 3);
  assert.deepEqual(
    scores,
    scores.toSorted((one, other) => other - one),
  );
});

test('what changes in a folder is there with the next question', (t) => {
  const { root, write } = folderFor(t);
  const index = indexOver(root);
  assert.deepEqual(sources(index.query(ask('apple'))), []);
  write('acme/docs/a.md', 'apple');
  write('acme/docs/b.md', 'banana');
  assert.deepEqual(sources(index.query(ask('apple'))), ['a.md']);
  write('acme/docs/a.md', 'cherry');
  // The same length within the same tick of the file system's clock.
  utimesSync(`${root}/acme/docs/a.md`, 1, 1);
  assert.deepEqual(sources(index.query(ask('apple'))), []);
  assert.deepEqual(sources(index.query(ask('cherry'))), ['a.md']);
  renameSync(`${root}/acme/docs/a.md`, `${root}/acme/docs/c.md`);
  assert.deepEqual(sources(index.query(ask('cherry banana'))).toSorted(), ['b.md', 'c.md']);
  rmSync(`${root}/acme/docs`, { recursive: true });
  assert.deepEqual(sources(index.query(ask('banana'))), []);
  assert.equal(index.size(), 0);
});

test('no name and no link leads to another tenant, or out of the root', (t) => {
  const { root, write } = folderFor(t);
  write('globex/docs/secret.md', 'secret');
  write('acme/docs/own.md', 'own');
  write('outside.md', 'secret');
  symlinkSync(`${root}/globex/docs`, `${root}/acme/linked`);
  symlinkSync(`${root}/globex`, `${root}/initech`);
  symlinkSync(`${root}/globex/docs/secret.md`, `${root}/acme/docs/secret.md`);
  symlinkSync('/dev/zero', `${root}/acme/docs/endless.md`);
  mkdirSync(`${root}/acme/docs/folder.md`);
  const index = indexOver(root);
  const found = (tenant: string, collection: string) => () =>
    sources(index.query(ask('secret', { tenant, collections: [collection] })));

  for (const [tenant, collection] of [
    ['acme', 'docs'],
    ['acme', 'linked'],
    ['initech', 'docs'],
    ['acme', 'x'.repeat(128)],
  ] as const)
    assert.deepEqual(found(tenant, collection)(), [], `${tenant}/${collection}`);
  for (const [tenant, collection] of [
    ...[
      ['..', 'docs'],
      ['acme', '..'],
      ['acme', '.'],
      ['.', 'globex'],
      ['acme', '../globex/docs'],
    ],
    ...[
      ['acme/../globex', 'docs'],
      ['acme', '..\\globex'],
      ['acme', 'docs\0'],
      ['', 'docs'],
      ['acme', ''],
    ],
  ] as const)
    assert.throws(found(tenant ?? '', collection ?? ''), /no name/, `${tenant}/${collection}`);
  assert.deepEqual(found('globex', 'docs')(), ['secret.md']);
});

test('files that are too large are left out, and counted', (t) => {
  const { root, write } = folderFor(t);
  write('acme/docs/huge.md', 'apple '.repeat(200_000));
  write('acme/docs/small.md', 'apple');
  write('acme/docs/picture.png', 'apple');
  const reply = indexOver(root).query(ask('apple'));
  assert.deepEqual(sources(reply), ['small.md']);
  assert.equal(reply.type === 'found' ? reply.leftOut : 0, 1);
});

test('a collection that takes long is read in parts, and what was read is kept', (t) => {
  const { root, write } = folderFor(t);
  for (const name of ['a', 'b', 'c']) write(`acme/docs/${name}.md`, 'apple');
  let now = 0;
  const index = indexOver(root, { readMs: 2, now: () => now++ });
  const rounds: string[] = [];
  for (let n = 0; n < 10 && rounds.at(-1) !== 'found'; n += 1) rounds.push(index.query(ask('apple')).type);
  assert.equal(rounds.at(-1), 'found');
  assert.equal(rounds[0], 'reading');
});

test('no more collections are held than there is room for', (t) => {
  const { root, write } = folderFor(t);
  const index = indexOver(root, { limits: { open: 2, bytes: 1_000 } });
  for (const name of ['a', 'b', 'c']) {
    write(`acme/${name}/x.md`, 'apple');
    assert.deepEqual(sources(index.query(ask('apple', { collections: [name] }))), ['x.md']);
  }
  assert.equal(index.size(), 2);
  write('acme/big/x.md', 'apple '.repeat(1_000));
  assert.deepEqual(sources(index.query(ask('apple', { collections: ['big'], limit: 1 }))), ['x.md']);
  assert.equal(index.size(), 1);
});

test('the thread answers for tenants, refuses what is no name, and ends with its node', async (t) => {
  leakFree(t);
  const { root, write } = folderFor(t);
  write('acme/docs/a.md', 'apple');
  const collections = createCollections({ folder: root, log: quiet });
  const question = { text: 'apple', collections: ['docs'], limit: 5 };
  const [passage] = await collections.query(acme, question);
  assert.deepEqual(
    [passage?.text, passage?.source, passage?.collection, (passage?.score ?? 0) > 0],
    ['apple', 'a.md', 'docs', true],
  );
  assert.deepEqual(await collections.query(tenantIdSchema.parse('globex'), question), []);
  for (const wrong of ['..', 'a/b', ''])
    assert.equal(
      await refusedWith(collections.query(acme, { ...question, collections: [wrong] })),
      'INVALID_REQUEST',
    );
  assert.throws(() => tenantIdSchema.parse('..'));

  const stop = new AbortController();
  const running = refusedWith(collections.query(acme, { ...question, signal: stop.signal }));
  stop.abort();
  assert.equal(await running, 'INTERRUPTED');
  const last = refusedWith(collections.query(acme, question));
  await collections.close();
  assert.equal(await last, 'DRAINING');
  await collections.close();
});

test('a tenant that asks too much at once is refused; others are answered', async (t) => {
  leakFree(t);
  const { root, write } = folderFor(t);
  write('globex/docs/a.md', 'apple');
  const collections = createCollections({ folder: root, log: quiet });
  t.after(() => collections.close());
  const question = { text: 'apple', collections: ['docs'], limit: 5 };
  const asked = Array.from({ length: 30 }, () =>
    collections.query(acme, question).then(
      () => 'found',
      () => 'refused',
    ),
  );
  const other = collections.query(tenantIdSchema.parse('globex'), question);
  const outcomes = await Promise.all(asked);
  assert.equal(outcomes.filter((outcome) => outcome === 'refused').length, 10);
  assert.equal((await other).length, 1);
});
