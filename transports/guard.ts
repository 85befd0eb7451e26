/** Looks over bytes from strangers before anything recurses over them: bounds nesting and counts without allocating. */

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPENING = new Set([0x5b, 0x7b]);

/** Whether JSON text (UTF-8) nests arrays and objects deeper than `maxDepth`. About 1 ns a byte; stops at the first that does. */
export function jsonTooDeep(bytes: Uint8Array, maxDepth: number): boolean {
  let depth = 0;
  let inText = false;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (inText) {
      if (byte === BACKSLASH) at += 1;
      else if (byte === QUOTE) inText = false;
    } else if (byte === QUOTE) inText = true;
    else if (byte === 0x7b || byte === 0x5b) {
      depth += 1;
      if (depth > maxDepth) return true;
    } else if (byte === 0x7d || byte === 0x5d) depth -= 1;
  }
  return false;
}

/** Whether a body can only be JSON: it starts with a brace or bracket, which no msgpack map and no record of ours does. */
export const startsLikeJson = (bytes: Uint8Array): boolean => {
  const first = bytes.find((byte) => byte !== 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d);
  return first !== undefined && OPENING.has(first);
};

/** Containers still open, the innermost last. Maps count keys and values. */
interface Open {
  left: number;
  readonly keyed: boolean;
}

/**
 * What is wrong with a msgpack body, or null: it must be one whole value out of what JSON can say (no extensions,
 * timestamps, binaries, or keys that are not strings), nested at most `maxDepth` deep, with no length header that
 * promises more than there is. `recordSizes`: how many fields each record structure agreed with a peer has.
 */
export function msgpackProblem(
  bytes: Uint8Array,
  maxDepth: number,
  recordSizes: readonly number[] = [],
): string | null {
  const open: Open[] = [];
  let at = 0;
  do {
    const inner = open.at(-1);
    if (at >= bytes.length) return 'the msgpack body ends too early';
    const item = readHeader(bytes, at, recordSizes);
    if (typeof item === 'string') return item;
    if (inner?.keyed && inner.left % 2 === 0 && !item.text) return 'map keys must be strings';
    at += item.size;
    if (at > bytes.length || item.items > bytes.length - at) return 'the msgpack body ends too early';
    if (inner) inner.left -= 1;
    if (item.container) {
      if (open.length >= maxDepth) return `nested deeper than ${maxDepth}`;
      open.push({ left: item.items, keyed: item.keyed });
    }
    while (open.at(-1)?.left === 0) open.pop();
  } while (open.length > 0);
  return at === bytes.length ? null : 'the msgpack body holds more than one value';
}

/** One item's header: bytes it takes (with its text), and items that follow inside it. */
interface Item {
  readonly size: number;
  readonly items: number;
  readonly container: boolean;
  readonly keyed: boolean;
  readonly text: boolean;
}

const scalar = (size: number): Item => ({ size, items: 0, container: false, keyed: false, text: false });
const text = (size: number): Item => ({ size, items: 0, container: false, keyed: false, text: true });
const list = (size: number, items: number): Item => ({
  size,
  items,
  container: true,
  keyed: false,
  text: false,
});
const map = (size: number, pairs: number): Item => ({
  size,
  items: pairs * 2,
  container: true,
  keyed: true,
  text: false,
});

/** Bytes that numbers take, by token from 0xca (float 32) to 0xd3 (int 64). */
const NUMBER_SIZES = [5, 9, 2, 3, 5, 9, 2, 3, 5, 9] as const;

function readHeader(bytes: Uint8Array, at: number, recordSizes: readonly number[]): Item | string {
  const token = bytes[at] ?? 0;
  if (token < 0x80) {
    const fields = recordSizes[token - 0x40];
    return fields === undefined ? scalar(1) : list(1, fields);
  }
  if (token < 0x90) return map(1, token - 0x80);
  if (token < 0xa0) return list(1, token - 0x90);
  if (token < 0xc0) return text(1 + token - 0xa0);
  if (token >= 0xe0 || token === 0xc0 || token === 0xc2 || token === 0xc3) return scalar(1);
  const number = NUMBER_SIZES[token - 0xca];
  if (number !== undefined) return scalar(number);
  switch (token) {
    case 0xd9:
      return text(2 + lengthAt(bytes, at + 1, 1));
    case 0xda:
      return text(3 + lengthAt(bytes, at + 1, 2));
    case 0xdb:
      return text(5 + lengthAt(bytes, at + 1, 4));
    case 0xdc:
      return list(3, lengthAt(bytes, at + 1, 2));
    case 0xdd:
      return list(5, lengthAt(bytes, at + 1, 4));
    case 0xde:
      return map(3, lengthAt(bytes, at + 1, 2));
    case 0xdf:
      return map(5, lengthAt(bytes, at + 1, 4));
    default:
      return 'binaries, timestamps and msgpack extensions are not taken';
  }
}

/** A big-endian length of `width` bytes; where bytes are missing the caller sees that the item ends beyond the body. */
function lengthAt(bytes: Uint8Array, at: number, width: 1 | 2 | 4): number {
  let length = 0;
  for (let index = at; index < at + width; index += 1) length = length * 256 + (bytes[index] ?? 0);
  return length;
}
