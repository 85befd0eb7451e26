/** Collections in memory, indexed for search by words (BM25+): read when asked for, read again when files change. */
import { LRUCache } from 'lru-cache';
import MiniSearch from 'minisearch';
import { listTexts, readText, type TextFile } from './folder.ts';
import type { SearchQuery, SearchReply } from './messages.ts';
import { piecesOf } from './passages.ts';

/** Collections held at once, and bytes of their files together; the ones unused for longest go. */
const MAX_OPEN = 200;
const MAX_OPEN_BYTES = 48 * 1024 * 1024;
/** Words of a question, and UTF-16 units of a word, that are looked for. */
const MAX_WORDS = 32;
const MAX_WORD_UNITS = 40;
/** Words this long are found by their beginning too, and those with a letter wrong. */
const PREFIX_FROM = 4;
const FUZZY_FROM = 6;

export interface SearchIndexOptions {
  readonly root: string;
  readonly readMs: number;
  /** Ms, growing. */
  readonly now: () => number;
  readonly limits?: { readonly open: number; readonly bytes: number };
}

interface Doc {
  readonly id: number;
  readonly text: string;
  readonly source: string;
}

interface ReadFile {
  readonly stamp: string;
  readonly ids: readonly number[];
}

interface Collection {
  readonly index: MiniSearch<Doc>;
  readonly docs: Map<number, Doc>;
  readonly files: Map<string, ReadFile>;
  nextId: number;
}

interface SearchIndex {
  query(query: SearchQuery): SearchReply;
  /** Collections in memory. */
  size(): number;
}

export function createSearchIndex({ root, readMs, now, limits }: SearchIndexOptions): SearchIndex {
  const { open: max, bytes: maxSize } = limits ?? { open: MAX_OPEN, bytes: MAX_OPEN_BYTES };
  const cache = new LRUCache<string, Collection>({ max, maxSize });

  /** The collection as its files are now; not `complete` where the time did not suffice to read them all. */
  function open(tenant: string, name: string, untilMs: number) {
    const key = `${tenant}/${name}`;
    const collection = cache.get(key) ?? blank();
    const { files, leftOut } = listTexts(root, tenant, name);
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
    // Deleted first, since a cache sizes an entry once. One that is too large is there alone.
    cache.delete(key);
    if (files.length > 0) cache.set(key, collection, { size: Math.min(maxSize, Math.max(1, bytes)) });
    return { collection, leftOut, complete: refresh(collection, files, () => now() < untilMs) };
  }

  return {
    query({ tenant, collections, text, limit }) {
      const untilMs = now() + readMs;
      const words = wordsOf(text);
      const passages = [];
      let leftOut = 0;
      for (const name of new Set(collections)) {
        const { collection, complete, ...listed } = open(tenant, name, untilMs);
        if (!complete) return { type: 'reading', collection: name };
        leftOut += listed.leftOut;
        const found = words === '' ? [] : collection.index.search(words).slice(0, limit);
        for (const { id, score } of found) {
          const doc = collection.docs.get(id);
          if (doc) passages.push({ text: doc.text, source: doc.source, collection: name, score });
        }
      }
      const best = passages.sort((one, other) => other.score - one.score).slice(0, limit);
      return { type: 'found', passages: best, leftOut };
    },
    size: () => cache.size,
  };
}

const blank = (): Collection => ({
  index: new MiniSearch<Doc>({
    fields: ['text', 'source'],
    processTerm: (term) => plain(term).slice(0, MAX_WORD_UNITS) || null,
    searchOptions: {
      boost: { source: 1.5 },
      prefix: (term) => term.length >= PREFIX_FROM,
      fuzzy: (term) => (term.length >= FUZZY_FROM ? 0.2 : false),
    },
  }),
  docs: new Map(),
  files: new Map(),
  nextId: 0,
});

/** Brings an index up to its files, one file at a time for as long as `goesOn`; true once it is. */
function refresh(collection: Collection, files: readonly TextFile[], goesOn: () => boolean): boolean {
  const stamps = new Map(files.map(({ name, stamp }) => [name, stamp]));
  for (const [name, { stamp }] of collection.files) if (stamps.get(name) !== stamp) remove(collection, name);
  for (const file of files) {
    if (collection.files.has(file.name)) continue;
    if (!goesOn()) return false;
    add(collection, file);
  }
  return true;
}

function remove(collection: Collection, name: string): void {
  for (const id of collection.files.get(name)?.ids ?? []) {
    collection.index.discard(id);
    collection.docs.delete(id);
  }
  collection.files.delete(name);
}

/** A file that cannot be read counts as empty until it changes. */
function add(collection: Collection, { name, path, stamp }: TextFile): void {
  const docs = piecesOf(readText(path) ?? '').map(({ heading, text }, index): Doc => {
    const source = heading === '' ? name : `${name} › ${heading}`;
    return { id: collection.nextId + index, text, source };
  });
  collection.nextId += docs.length;
  collection.index.addAll(docs);
  for (const doc of docs) collection.docs.set(doc.id, doc);
  collection.files.set(name, { stamp, ids: docs.map(({ id }) => id) });
}

/** Without accents and large letters: people leave them out when they ask. */
const plain = (term: string): string =>
  term
    .normalize('NFD')
    .replace(/\p{M}+/gu, '')
    .toLowerCase();

const wordsOf = (text: string): string =>
  [...new Set(text.match(/[\p{L}\p{N}]+/gu) ?? [])].slice(0, MAX_WORDS).join(' ');
