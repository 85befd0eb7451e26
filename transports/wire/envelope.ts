/** Finds the envelope's fields in bytes that are refused as a whole, as far as they can be read: whoever sent them is to be told. */
import type { Fields } from '../../src/domain/domain-action.ts';
import { afterItem, afterText, isText, itemsOfMap } from './depth-limit.ts';

/** Bytes of a value that is looked into; none of the envelope's has as many. */
const MAX_VALUE_BYTES = 4_096;

const QUOTE = 0x22;
const COLON = 0x3a;
const COMMA = 0x2c;

/** Reads a value's bytes; undefined where they are none. */
type ReadValue = (bytes: Uint8Array) => unknown;

/**
 * The fields of those names in a JSON object, up to where it breaks: cut off, no UTF-8, `NaN`, too deep and too large
 * ones included. One pass over the bytes, without recursion.
 */
export function jsonFields(bytes: Uint8Array, names: ReadonlySet<string>, read: ReadValue): Fields {
  const fields: Fields = {};
  let at = blanks(bytes, 0);
  if (bytes[at] !== 0x7b) return fields;
  at = blanks(bytes, at + 1);
  while (bytes[at] === QUOTE) {
    const keyEnd = afterText(bytes, at + 1);
    const colon = blanks(bytes, keyEnd);
    if (bytes[colon] !== COLON) break;
    const start = blanks(bytes, colon + 1);
    const end = afterJsonValue(bytes, start);
    if (end > bytes.length) break;
    note(fields, read(bytes.subarray(at, keyEnd)), bytes.subarray(start, end), names, read);
    const next = blanks(bytes, end);
    if (bytes[next] !== COMMA) break;
    at = blanks(bytes, next + 1);
  }
  return fields;
}

/** As jsonFields, of a msgpack map; binaries and extensions in other fields are passed over. */
export function msgpackFields(bytes: Uint8Array, names: ReadonlySet<string>, read: ReadValue): Fields {
  const fields: Fields = {};
  const map = itemsOfMap(bytes);
  let at = map?.at ?? 0;
  for (let left = map?.pairs ?? 0; left > 0 && isText(bytes, at); left -= 1) {
    const start = afterItem(bytes, at);
    const end = start < bytes.length ? afterItem(bytes, start) : bytes.length + 1;
    if (end > bytes.length) break;
    note(fields, read(bytes.subarray(at, start)), bytes.subarray(start, end), names, read);
    at = end;
  }
  return fields;
}

function note(
  fields: Fields,
  name: unknown,
  value: Uint8Array,
  names: ReadonlySet<string>,
  read: ReadValue,
): void {
  if (typeof name !== 'string' || !names.has(name) || value.length > MAX_VALUE_BYTES) return;
  fields[name] = read(value);
}

function blanks(bytes: Uint8Array, from: number): number {
  let at = from;
  while (bytes[at] === 0x20 || bytes[at] === 0x09 || bytes[at] === 0x0a || bytes[at] === 0x0d) at += 1;
  return at;
}

/** Where the value that begins there is over, of any kind; beyond the bytes where it does not end; whether it is a valid one is not asked. */
function afterJsonValue(bytes: Uint8Array, from: number): number {
  let depth = 0;
  for (let at = from; at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (byte === QUOTE) {
      at = afterText(bytes, at + 1) - 1;
      if (depth === 0) return at + 1;
    } else if (byte === 0x7b || byte === 0x5b) depth += 1;
    else if (byte === 0x7d || byte === 0x5d) {
      if (depth === 0) return at;
      depth -= 1;
      if (depth === 0) return at + 1;
    } else if (byte === COMMA && depth === 0) return at;
  }
  return bytes.length + 1;
}
