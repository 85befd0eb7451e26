/** Tool calls as models stream them: in pieces, put together by the rules below, and made fit to be sent back. */
import { type RefusalError, refusalError } from '../domain/errors.ts';

/** A whole call. `args` is the JSON text that the model wrote, good or bad. */
export interface ToolCall {
  readonly id: string;
  /** Fit to be sent back; not always the name of a tool. */
  readonly name: string;
  readonly args: string;
  /** What the endpoint wants back with the call, such as a signature of thoughts. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

/** A piece of a call. What is not there, or says nothing, is undefined: null is no index, '' no id and no name. */
export interface ToolCallPiece {
  readonly index?: number | undefined;
  readonly id?: string | undefined;
  readonly name?: string | undefined;
  readonly args?: string | undefined;
  readonly extra?: Readonly<Record<string, unknown>> | undefined;
}

/** Calls in one message of a model. */
export const MAX_CALLS = 16;
/** UTF-16 units of one call's arguments. */
export const MAX_ARGS_UNITS = 65_536;
const MAX_ID_UNITS = 128;
const MAX_NAME_UNITS = 64;

export interface OpenCall {
  index: number | undefined;
  id: string;
  name: string;
  args: string;
  /** The first and the newest piece of them: some endpoints send in each all that there is by then. */
  first: string;
  newest: string;
  extra: Record<string, unknown> | undefined;
}

/** Adds pieces to the calls they belong to, in place. Throws a RefusalError (MODEL_ERROR) past the bounds above. */
export function addPieces(calls: OpenCall[], pieces: readonly ToolCallPiece[]): void {
  for (const piece of pieces) {
    const call = ownerOf(calls, piece) ?? open(calls, piece);
    call.index ??= piece.index;
    call.id ||= piece.id ?? '';
    if (piece.name !== undefined) nameOf(call, piece.name);
    call.args += piece.args ?? '';
    call.first ||= piece.args ?? '';
    call.newest = piece.args || call.newest;
    if (piece.extra) call.extra = { ...call.extra, ...piece.extra };
    if (call.args.length > MAX_ARGS_UNITS) throw excess('The model wrote tool arguments that are too long.');
  }
}

/**
 * Whose piece it is; undefined where it opens a call:
 * 1. A piece with an id that a call at its index has (or at no index, where either has none) is that call's.
 * 2. Else it is of the last call at its index; without an index, of the last call of all. One with an index that no
 *    call has, and without a name, is of the last call if that has no index yet.
 * 3. But a piece with a name opens a call of its own when its id is not that call's, or, where one of them has no id,
 *    when that call has another name or has its arguments already. A new id without a name opens nothing.
 */
function ownerOf(calls: readonly OpenCall[], piece: ToolCallPiece): OpenCall | undefined {
  const { index, id, name } = piece;
  const near = calls.filter(
    (call) => index === undefined || call.index === undefined || call.index === index,
  );
  const same = id === undefined ? undefined : near.findLast((call) => call.id === id);
  if (same) return same;
  const last = calls.at(-1);
  const owner =
    index === undefined
      ? last
      : (calls.findLast((call) => call.index === index) ??
        (name === undefined && last?.index === undefined ? last : undefined));
  return owner && name !== undefined && opens(owner, piece) ? undefined : owner;
}

function opens(call: OpenCall, { id, name }: ToolCallPiece): boolean {
  if (call.name === '') return false;
  if (id !== undefined && call.id !== '') return id !== call.id;
  return call.name !== name || isWhole(call.args);
}

function isWhole(args: string): boolean {
  if (args.trim() === '') return false;
  try {
    JSON.parse(args);
    return true;
  } catch {
    return false;
  }
}

/** A name that comes again in each piece is the same one; one that goes on in the next piece is put together. */
function nameOf(call: OpenCall, name: string): void {
  if (call.name === '') call.name = name;
  else if (call.name !== name && call.args === '' && call.name.length + name.length <= 2 * MAX_NAME_UNITS)
    call.name += name;
}

function open(calls: OpenCall[], piece: ToolCallPiece): OpenCall {
  if (calls.length >= MAX_CALLS) throw excess(`The model asked for more than ${MAX_CALLS} tools at once.`);
  const call: OpenCall = {
    index: piece.index,
    id: '',
    name: '',
    args: '',
    first: '',
    newest: '',
    extra: undefined,
  };
  calls.push(call);
  return call;
}

const excess = (message: string): RefusalError => refusalError('MODEL_ERROR', { message });

/**
 * Closes the calls of a message that stands at `place` in its conversation: each has a unique id, also where the
 * provider gave none, and a name that can be sent. `tools` are the names that a call may plainly mean.
 */
export function closeCalls(
  calls: readonly OpenCall[],
  place: number,
  tools: readonly string[],
): readonly ToolCall[] {
  const ids = new Set<string>();
  return calls.map((call, at) => {
    const { id, name, extra } = call;
    const args = argsOf(call);
    const own = isFitId(id) && !ids.has(id) ? id : `call_${place}_${at + 1}`;
    ids.add(own);
    return { id: own, name: fitName(name, tools), args: args.toWellFormed(), ...(extra ? { extra } : {}) };
  });
}

/** The pieces together; where they make no JSON, and the last one begins as the first and is an object: that one. */
function argsOf({ args, first, newest }: OpenCall): string {
  const hasAll = newest.startsWith('{') && (first === '{}' || newest.startsWith(first));
  return hasAll && newest !== args && !isWhole(args) && isWhole(newest) ? newest : args;
}

const isFitId = (id: string): boolean => id !== '' && id.length <= MAX_ID_UNITS && id.isWellFormed();

/** The tool that was plainly meant, behind tokens of a template, prefixes and blanks; else a name that can be sent. */
function fitName(name: string, tools: readonly string[]): string {
  if (tools.includes(name)) return name;
  const bare = name
    .replace(/<[|\\｜].*$/su, '')
    .replace(/[^\w-]+$/u, '')
    .replace(/^.*[.:/\s]/su, '')
    .replace(/^[^\w-]+/u, '');
  if (tools.includes(bare)) return bare;
  return name.replace(/[^a-zA-Z0-9_-]+/g, '_').slice(0, MAX_NAME_UNITS) || 'unnamed';
}

/** A call's arguments, or undefined where the text is no JSON object. No text at all, and null, mean no arguments. */
export function parseArgs(text: string): Record<string, unknown> | undefined {
  try {
    const whole = text.trim() === '' ? '{}' : text;
    // Half a character may hide behind an escape.
    const value: unknown = HALF.test(whole) ? JSON.parse(whole, wellFormed) : JSON.parse(whole);
    // Some models write the object's text as a text once more.
    const inner: unknown = typeof value === 'string' && value.trim() !== '' ? JSON.parse(value) : value;
    if (inner === null || inner === '') return {};
    return isRecord(inner) ? inner : undefined;
  } catch {
    return undefined;
  }
}

const HALF = /\\u[dD][89a-fA-F]/;

const wellFormed = (_key: string, value: unknown): unknown =>
  typeof value === 'string' ? value.toWellFormed() : value;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
