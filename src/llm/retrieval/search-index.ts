/** Collections in memory, indexed for search by words (BM25+): read when asked for, read again when files change. */
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

interface Open {
  readonly index: MiniSearch<Doc>;
  readonly docs: Map<number, Doc>;
  readonly files: Map<string, ReadFile>;
  bytes: number;
  nextId: number;
  leftOut: number;
}

interface SearchIndex {
  query(query: SearchQuery): SearchReply;
  /** Collections in memory. */
  size(): number;
}

export function createSearchIndex({ root, readMs, now, limits }: SearchIndexOptions): SearchIndex {
  const { open: maxOpen, bytes: maxBytes } = limits ?? { open: MAX_OPEN, bytes: MAX_OPEN_BYTES };
  /** The one that was used last stands at the end. */
  const shelf = new Map<string, Open>();

  /** The collection as its files are now, or as far as it was read in time. */
  function opened(tenant: string, name: string, untilMs: number): { open: Open; complete: boolean } {
    const key = `${tenant}/${name}`;
    const open = shelf.get(key) ?? blank();
    const { files, leftOut } = listTexts(root, tenant, name);
    shelf.delete(key);
    if (files.length > 0) shelf.set(key, open);
    open.leftOut = leftOut;
    open.bytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
    makeRoom(open);
    return { open, complete: refresh(open, files, () => now() < untilMs) };
  }

  function makeRoom(keep: Open): void {
    let bytes = 0;
    for (const open of shelf.values()) bytes += open.bytes;
    for (const [key, open] of shelf) {
      if (shelf.size <= maxOpen && bytes <= maxBytes) return;
      if (open === keep) continue;
      shelf.delete(key);
      bytes -= open.bytes;
    }
  }

  return {
    query({ tenant, collections, text, limit }) {
      const untilMs = now() + readMs;
      const words = wordsOf(text);
      const passages = [];
      let leftOut = 0;
      for (const collection of new Set(collections)) {
        const { open, complete } = opened(tenant, collection, untilMs);
        if (!complete) return { type: 'reading', collection };
        leftOut += open.leftOut;
        const found = words === '' ? [] : open.index.search(words).slice(0, limit);
        for (const { id, score } of found) {
          const doc = open.docs.get(id);
          if (doc) passages.push({ text: doc.text, source: doc.source, collection, score });
        }
      }
      const best = passages.sort((one, other) => other.score - one.score).slice(0, limit);
      return { type: 'found', passages: best, leftOut };
    },
    size: () => shelf.size,
  };
}

const blank = (): Open => ({
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
  bytes: 0,
  nextId: 0,
  leftOut: 0,
});

/** Brings an index up to its files, one file at a time for as long as `goesOn`; true once it is. */
function refresh(open: Open, files: readonly TextFile[], goesOn: () => boolean): boolean {
  const stamps = new Map(files.map(({ name, stamp }) => [name, stamp]));
  for (const [name, { stamp }] of open.files) if (stamps.get(name) !== stamp) remove(open, name);
  for (const file of files) {
    if (open.files.has(file.name)) continue;
    if (!goesOn()) return false;
    add(open, file);
  }
  return true;
}

function remove(open: Open, name: string): void {
  for (const id of open.files.get(name)?.ids ?? []) {
    open.index.discard(id);
    open.docs.delete(id);
  }
  open.files.delete(name);
}

/** A file that cannot be read counts as empty until it changes. */
function add(open: Open, { name, path, stamp }: TextFile): void {
  const docs = piecesOf(readText(path) ?? '').map(({ heading, text }, index): Doc => {
    const source = heading === '' ? name : `${name} › ${heading}`;
    return { id: open.nextId + index, text, source };
  });
  open.nextId += docs.length;
  open.index.addAll(docs);
  for (const doc of docs) open.docs.set(doc.id, doc);
  open.files.set(name, { stamp, ids: docs.map(({ id }) => id) });
}

/** Without accents and large letters: people leave them out when they ask. */
const plain = (term: string): string =>
  term
    .normalize('NFD')
    .replace(/\p{M}+/gu, '')
    .toLowerCase();

const wordsOf = (text: string): string =>
  [...new Set(text.match(/[\p{L}\p{N}]+/gu) ?? [])].slice(0, MAX_WORDS).join(' ');
