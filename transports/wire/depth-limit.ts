/** Bounds the nesting of bytes from strangers, and how much they hold, before anything is made of them. */
import { isUtf8 } from 'node:buffer';
import { MAX_DEPTH } from '../../src/domain/frames.ts';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * What the values of one body may weigh: what it costs to make them, to copy them and to check them grows with their
 * number and kind, not with their bytes. At the limit all of it takes 2 to 4 ms. A number weighs 1, a text 4, a list or
 * an object 8, a field 12 beside its name and value.
 */
export const MAX_WEIGHT = 48_000;
const TEXT_WEIGHT = 4;
const CONTAINER_WEIGHT = 8;
const FIELD_WEIGHT = 12;

const TOO_DEEP = `nested deeper than ${MAX_DEPTH}`;
const TOO_HEAVY = 'more values and fields than are taken at once';

/** What is wrong with JSON text, or null; and whether it has numbers that a double may not hold (JSON.parse then rounds). */
export interface JsonScan {
  readonly problem: string | null;
  readonly hasLargeNumbers: boolean;
}

const [SAFE, LARGE, DEEP, HEAVY]: readonly [JsonScan, JsonScan, JsonScan, JsonScan] = [
  { problem: null, hasLargeNumbers: false },
  { problem: null, hasLargeNumbers: true },
  { problem: TOO_DEEP, hasLargeNumbers: false },
  { problem: TOO_HEAVY, hasLargeNumbers: false },
];

/**
 * Looks once over JSON text (UTF-8): whether it nests deeper than MAX_DEPTH, or its values weigh more than MAX_WEIGHT.
 * Whether it is JSON is not asked. About 1 ns a byte, far less in long texts; stops where the first limit is passed.
 */
export function scanJson(bytes: Uint8Array): JsonScan {
  let depth = 0;
  let weight = 0;
  let hasLargeNumbers = false;
  for (let at = 0; at < bytes.length; ) {
    const byte = bytes[at] ?? 0;
    if (isDigit(byte)) {
      const end = afterNumber(bytes, at);
      // Its sign says that it is large: two results of one call, which is made for each number.
      hasLargeNumbers ||= end < 0;
      at = Math.abs(end);
      continue;
    }
    at += 1;
    if (byte === QUOTE) {
      weight += TEXT_WEIGHT;
      at = afterText(bytes, at);
    } else if (byte === 0x2c) weight += 1;
    else if (byte === 0x3a) weight += FIELD_WEIGHT;
    else if (byte === 0x7b || byte === 0x5b) {
      depth += 1;
      weight += CONTAINER_WEIGHT;
      if (depth > MAX_DEPTH) return DEEP;
    } else if (byte === 0x7d || byte === 0x5d) depth -= 1;
    if (weight > MAX_WEIGHT) return HEAVY;
  }
  return hasLargeNumbers ? LARGE : SAFE;
}

/** Bytes of a text that are looked at here, before a native search for its end pays. */
const SEARCH_AFTER = 32;

/** Where the text is over whose opening quote stands before `from`: behind its closing quote; beyond the bytes where there is none. */
export function afterText(bytes: Uint8Array, from: number): number {
  let at = from;
  while (at < bytes.length) {
    const near = Math.min(at + SEARCH_AFTER, bytes.length);
    for (; at < near; at += 1) {
      const byte = bytes[at];
      if (byte === QUOTE) return at + 1;
      if (byte === BACKSLASH) at += 1;
    }
    const quote = bytes.indexOf(QUOTE, at);
    if (quote < 0) break;
    let escapes = quote;
    while (escapes > at && bytes[escapes - 1] === BACKSLASH) escapes -= 1;
    if ((quote - escapes) % 2 === 0) return quote + 1;
    at = quote + 1;
  }
  return bytes.length + 1;
}

const isDigit = (byte: number | undefined): boolean => byte !== undefined && byte >= 0x30 && byte <= 0x39;

/** Whole numbers of fewer digits are exact, and so many of an exponent are no infinity. */
const EXACT_DIGITS = 15;
const SAFE_EXPONENT_DIGITS = 2;

/** Behind the number that begins there; negative where a double may not hold it. */
function afterNumber(bytes: Uint8Array, from: number): number {
  let at = afterDigits(bytes, from);
  let isLarge = at - from > EXACT_DIGITS;
  if (bytes[at] === 0x2e) at = afterDigits(bytes, at + 1);
  if (((bytes[at] ?? 0) | 0x20) === 0x65) {
    const exponent = bytes[at + 1] === 0x2b ? at + 2 : at + 1;
    at = afterDigits(bytes, exponent);
    isLarge ||= at - exponent > SAFE_EXPONENT_DIGITS;
  }
  return isLarge ? -at : at;
}

function afterDigits(bytes: Uint8Array, from: number): number {
  let at = from;
  while (isDigit(bytes[at])) at += 1;
  return at;
}

/** Whether a body can only be JSON: it starts with a brace or bracket, which no msgpack map and no record of ours does. */
export function startsLikeJson(bytes: Uint8Array): boolean {
  let at = 0;
  while (bytes[at] === 0x20 || bytes[at] === 0x09 || bytes[at] === 0x0a || bytes[at] === 0x0d) at += 1;
  return bytes[at] === 0x7b || bytes[at] === 0x5b;
}

/** Containers still open, the innermost last. Maps count keys and values. */
interface Open {
  left: number;
  keyed: boolean;
}

/** One item's header: bytes it takes (with its text), and items that follow inside it. */
interface Item {
  size: number;
  items: number;
  container: boolean;
  keyed: boolean;
  text: boolean;
  /** Bytes before a text begins. */
  head: number;
}

// Both are used again for every body: this runs for every action, and within one tick.
const stack: Open[] = [];
const item: Item = { size: 0, items: 0, container: false, keyed: false, text: false, head: 0 };

/**
 * What is wrong with a msgpack body, or null: it must be one whole value out of what JSON can say (no extensions,
 * timestamps, binaries, or keys that are not strings), nested at most MAX_DEPTH deep, no heavier than MAX_WEIGHT, with no
 * length header that promises more than there is. `recordSizes`: how many fields each record structure agreed with a peer has.
 */
export function msgpackProblem(
  bytes: Uint8Array,
  recordSizes: readonly number[] = NO_RECORDS,
  maxWeight: number = MAX_WEIGHT,
): string | null {
  let depth = 0;
  let weight = 0;
  let at = 0;
  do {
    const inner = depth === 0 ? undefined : stack[depth - 1];
    if (at >= bytes.length) return 'the msgpack body ends too early';
    if (!readHeader(bytes, at, recordSizes))
      return 'binaries, timestamps and msgpack extensions are not taken';
    if (inner?.keyed && inner.left % 2 === 0 && !item.text) return 'map keys must be strings';
    const end = at + item.size;
    if (end > bytes.length || item.items > bytes.length - end) return 'the msgpack body ends too early';
    if (item.text && !isUtf8Within(bytes, at + item.head, end)) return 'not UTF-8';
    if (isNoNumber(bytes, at)) return 'NaN and infinite numbers are not taken';
    at = end;
    if (inner) inner.left -= 1;
    weight += weightOf(inner?.keyed === true);
    if (weight > maxWeight) return TOO_HEAVY;
    if (item.container) {
      if (depth >= MAX_DEPTH) return TOO_DEEP;
      open(depth);
      depth += 1;
    }
    while (depth > 0 && stack[depth - 1]?.left === 0) depth -= 1;
  } while (depth > 0);
  return at === bytes.length ? null : 'the msgpack body holds more than one value';
}

/** Of the item whose header was read; in a map the name and the value have half of the field's each. */
const weightOf = (inMap: boolean): number =>
  (item.container ? CONTAINER_WEIGHT : item.text ? TEXT_WEIGHT : 1) + (inMap ? FIELD_WEIGHT / 2 : 0);

const NO_RECORDS: readonly number[] = [];

/** Puts the container whose header was read on the stack. */
function open(depth: number): void {
  const above = stack[depth];
  if (above) {
    above.left = item.items;
    above.keyed = item.keyed;
  } else stack[depth] = { left: item.items, keyed: item.keyed };
}

function fill(
  size: number,
  items: number,
  container: boolean,
  keyed: boolean,
  text: boolean,
  head: number,
): true {
  item.size = size;
  item.items = items;
  item.container = container;
  item.keyed = keyed;
  item.text = text;
  item.head = head;
  return true;
}
const scalar = (size: number): true => fill(size, 0, false, false, false, 0);
const text = (head: number, length: number): true => fill(head + length, 0, false, false, true, head);
const list = (size: number, items: number): true => fill(size, items, true, false, false, 0);
const map = (size: number, pairs: number): true => fill(size, pairs * 2, true, true, false, 0);

/** Texts so short are looked at here: for a native call most keys and ids are too small. */
const SHORT_TEXT = 64;

function isUtf8Within(bytes: Uint8Array, from: number, to: number): boolean {
  if (to - from <= SHORT_TEXT) {
    let at = from;
    while (at < to && (bytes[at] ?? 0) < 0x80) at += 1;
    if (at === to) return true;
  }
  return isUtf8(bytes.subarray(from, to));
}

/** Whether the number that begins there is a float of which all bits of the exponent are set: none that JSON could say. */
function isNoNumber(bytes: Uint8Array, at: number): boolean {
  const token = bytes[at];
  if (token !== 0xca && token !== 0xcb) return false;
  const [first = 0, second = 0] = [bytes[at + 1], bytes[at + 2]];
  const exponentEnd = token === 0xca ? 0x80 : 0xf0;
  return (first & 0x7f) === 0x7f && (second & exponentEnd) === exponentEnd;
}

/** Bytes that numbers take, by token from 0xca (float 32) to 0xd3 (int 64). */
const NUMBER_SIZES = [5, 9, 2, 3, 5, 9, 2, 3, 5, 9] as const;

/** Reads the header there into `item`; false where it is of a kind that is not taken. */
function readHeader(bytes: Uint8Array, at: number, recordSizes: readonly number[]): boolean {
  const token = bytes[at] ?? 0;
  if (token < 0x80) {
    const fields = recordSizes[token - 0x40];
    return fields === undefined ? scalar(1) : list(1, fields);
  }
  if (token < 0x90) return map(1, token - 0x80);
  if (token < 0xa0) return list(1, token - 0x90);
  if (token < 0xc0) return text(1, token - 0xa0);
  if (token >= 0xe0 || token === 0xc0 || token === 0xc2 || token === 0xc3) return scalar(1);
  const number = NUMBER_SIZES[token - 0xca];
  if (number !== undefined) return scalar(number);
  switch (token) {
    case 0xd9:
      return text(2, lengthAt(bytes, at + 1, 1));
    case 0xda:
      return text(3, lengthAt(bytes, at + 1, 2));
    case 0xdb:
      return text(5, lengthAt(bytes, at + 1, 4));
    case 0xdc:
      return list(3, lengthAt(bytes, at + 1, 2));
    case 0xdd:
      return list(5, lengthAt(bytes, at + 1, 4));
    case 0xde:
      return map(3, lengthAt(bytes, at + 1, 2));
    case 0xdf:
      return map(5, lengthAt(bytes, at + 1, 4));
    default:
      return false;
  }
}

// --- Passing over items whose insides do not matter -----------------------------------------------------------

/** Where the pairs of the map that a body is begin, and how many there are; null where it is none. */
export function itemsOfMap(bytes: Uint8Array): { readonly at: number; readonly pairs: number } | null {
  if (!readHeader(bytes, 0, NO_RECORDS) || !item.keyed) return null;
  return { at: item.size, pairs: item.items / 2 };
}

export const isText = (bytes: Uint8Array, at: number): boolean =>
  at < bytes.length && readHeader(bytes, at, NO_RECORDS) && item.text;

/** Where the item that begins there is over, with all that it holds; beyond the body where that is cut off or none. */
export function afterItem(bytes: Uint8Array, from: number): number {
  let at = from;
  for (let left = 1; left > 0 && at < bytes.length; left -= 1) {
    if (readHeader(bytes, at, NO_RECORDS)) {
      at += item.size;
      left += item.items;
    } else at += opaqueSize(bytes, at);
    if (left - 1 > bytes.length - at) return bytes.length + 1;
  }
  return at;
}

/** Bytes of a binary or an extension. */
function opaqueSize(bytes: Uint8Array, at: number): number {
  const token = bytes[at] ?? 0;
  if (token >= 0xd4 && token <= 0xd8) return 2 + 2 ** (token - 0xd4);
  if (token < 0xc4 || token > 0xc9) return Number.POSITIVE_INFINITY;
  const width = token === 0xc4 || token === 0xc7 ? 1 : token === 0xc5 || token === 0xc8 ? 2 : 4;
  return 1 + width + (token >= 0xc7 ? 1 : 0) + lengthAt(bytes, at + 1, width);
}

/** A big-endian length of `width` bytes; where bytes are missing the caller sees that the item ends beyond the body. */
function lengthAt(bytes: Uint8Array, at: number, width: 1 | 2 | 4): number {
  let length = 0;
  for (let index = at; index < at + width; index += 1) length = length * 256 + (bytes[index] ?? 0);
  return length;
}
