/** Tool calls as models stream them: in pieces, which belong together by index. */
import { type RefusalError, refusalError } from '../domain/errors.ts';

/** A whole call. `args` is the JSON text that the model wrote, good or bad. */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  readonly args: string;
}

/** A piece of a call; LangChain's ToolCallChunk fits. Without an index, an id or a name opens a new call. */
export interface ToolCallPiece {
  readonly index?: number | undefined;
  readonly id?: string | undefined;
  readonly name?: string | undefined;
  readonly args?: string | undefined;
}

/** Calls in one message of a model. */
export const MAX_CALLS = 16;
/** UTF-16 units of one call's arguments. */
export const MAX_ARGS_UNITS = 65_536;
const MAX_ID_UNITS = 128;

export interface OpenCall {
  readonly index: number | undefined;
  id: string;
  name: string;
  args: string;
}

/** Adds pieces to the calls they belong to, in place. Throws a RefusalError (MODEL_ERROR) past the bounds above. */
export function addPieces(calls: OpenCall[], pieces: readonly ToolCallPiece[]): void {
  for (const piece of pieces) {
    const call = find(calls, piece) ?? open(calls, piece);
    call.id ||= piece.id ?? '';
    call.name ||= piece.name ?? '';
    call.args += piece.args ?? '';
    if (call.args.length > MAX_ARGS_UNITS) throw excess('The model wrote tool arguments that are too long.');
  }
}

function find(calls: readonly OpenCall[], piece: ToolCallPiece): OpenCall | undefined {
  if (piece.index !== undefined) return calls.find((call) => call.index === piece.index);
  const last = calls.at(-1);
  const opens = piece.id ? last?.id !== piece.id : Boolean(piece.name);
  return opens ? undefined : last;
}

function open(calls: OpenCall[], piece: ToolCallPiece): OpenCall {
  if (calls.length >= MAX_CALLS) throw excess(`The model asked for more than ${MAX_CALLS} tools at once.`);
  const call: OpenCall = { index: piece.index, id: '', name: '', args: '' };
  calls.push(call);
  return call;
}

const excess = (message: string): RefusalError => refusalError('MODEL_ERROR', { message });

/** Closes the calls of iteration `iteration`: each has a unique id, also where the provider gave none. */
export function closeCalls(calls: readonly OpenCall[], iteration: number): readonly ToolCall[] {
  const ids = new Set<string>();
  return calls.map(({ id, name, args }, place) => {
    const own =
      id !== '' && id.length <= MAX_ID_UNITS && !ids.has(id) ? id : `call_${iteration}_${place + 1}`;
    ids.add(own);
    return { id: own, name, args };
  });
}

/** A call's arguments, or undefined where the text is no JSON object. No text at all means no arguments. */
export function parseArgs(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text.trim() === '' ? '{}' : text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
