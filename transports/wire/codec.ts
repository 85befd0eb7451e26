/** Turns bytes from a wire into checked values and back: the only file that knows msgpackr. */
import { isUtf8 } from 'node:buffer';
import { Packr } from 'msgpackr';
import {
  type DomainAction,
  ENVELOPE_FIELDS,
  ENVELOPE_NAMES,
  type Fields,
  type ParsedAction,
  parseDomainAction,
  readableEnvelope,
} from '../../src/domain/domain-action.ts';
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import { parseExactly } from '../../src/domain/exact-json.ts';
import { type ClientFrame, clientFrameSchema, type Frame, MAX_FRAME_BYTES } from '../../src/domain/frames.ts';
import { type TaskId, taskIdSchema } from '../../src/domain/ids.ts';
import { problemText } from '../../src/domain/problems.ts';
import type { CrossingFrame } from '../../src/ports/links.ts';
import type { Sendable } from '../../src/ports/transport.ts';
import { msgpackProblem, scanJson, startsLikeJson } from './depth-limit.ts';
import { jsonFields, msgpackFields } from './envelope.ts';

/** How a peer writes: JSON text, or msgpack maps. */
export type Format = 'json' | 'msgpack';

/**
 * Bytes of one action on a queue; long texts fit, a runaway sender does not. What is longer than MAX_INLINE_BYTES is
 * read in a worker (queue/body-reader.ts): text of that size takes some 15 ms.
 */
export const MAX_ACTION_BYTES = 4 * 1024 * 1024;
export const MAX_INLINE_BYTES = 64 * 1024;

// To strangers plain maps, as small as they get; what JSON leaves out (undefined) is left out here too.
const PLAIN = {
  useRecords: false,
  mapsAsObjects: true,
  variableMapSize: true,
  skipValues: [undefined],
  encodeUndefinedAsNil: true,
  int64AsType: 'number',
  largeBigIntToString: true,
} as const;
const plain = new Packr({ ...PLAIN });
// Whole numbers beyond 2^53 become bigints, as those of JSON (parseExactly); msgpackr's types do not name this value.
Object.assign(plain, { int64AsType: 'auto' });

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

type Raw = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly problem: string };

const bad = (problem: string): Raw => ({ ok: false, problem });

/** Bytes as a plain value of JSON's kind, within the limits of depth-limit.ts. */
function decode(bytes: Uint8Array, format: Format): Raw {
  if (format === 'json') return decodeJson(bytes);
  try {
    const problem = msgpackProblem(bytes);
    return problem === null ? { ok: true, value: plain.unpack(bytes) } : bad(problem);
  } catch {
    // The parsers' own texts quote the input, and say no more than this.
    return bad('not valid msgpack');
  }
}

/** JSON text in UTF-8, with or without a byte order mark, as a value; whole numbers beyond 2^53 are bigints. */
export function decodeJson(given: Uint8Array): Raw {
  const bytes = withoutMark(given);
  if (!isUtf8(bytes)) return bad('not UTF-8');
  const { problem, hasLargeNumbers } = scanJson(bytes);
  if (problem !== null) return bad(problem);
  try {
    const text = asBuffer(bytes).toString();
    return { ok: true, value: hasLargeNumbers ? parseExactly(text) : JSON.parse(text) };
  } catch {
    return bad('not valid JSON');
  }
}

/** Without the mark that some editors and clients put before JSON. */
const withoutMark = (bytes: Uint8Array): Uint8Array =>
  bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;

// --- Frames ------------------------------------------------------------------------------------------------

type DecodedFrame =
  | { readonly ok: true; readonly frame: ClientFrame }
  | { readonly ok: false; readonly error: ErrorData; readonly taskId: TaskId | undefined };

/**
 * Reads one frame of a client: JSON text or a msgpack map. Refuses with INVALID_REQUEST, and with the frame's
 * task id where it has a valid one. Keeps no reference to `bytes`.
 */
export function decodeClientFrame(bytes: Uint8Array, format: Format): DecodedFrame {
  if (bytes.length > MAX_FRAME_BYTES) return refuseFrame(`larger than ${MAX_FRAME_BYTES} bytes`);
  const raw = decode(bytes, format);
  if (!raw.ok) return refuseFrame(raw.problem);
  const parsed = clientFrameSchema.safeParse(raw.value);
  return parsed.success
    ? { ok: true, frame: parsed.data }
    : refuseFrame(problemText(parsed.error, 'frame'), taskIdOf(raw.value));
}

const refuseFrame = (problem: string, taskId?: TaskId): DecodedFrame => ({
  ok: false,
  error: refusal('INVALID_REQUEST', { message: `The frame is malformed: ${problem}.` }),
  taskId,
});

/** The refusal of a binary frame where text was agreed on, or the other way round. */
export const wrongKindOfFrame = (format: Format): DecodedFrame =>
  refuseFrame(
    format === 'json'
      ? 'this socket speaks JSON, so send text, or connect with the subprotocol nooble.msgpack'
      : 'this socket speaks msgpack, so send binary frames',
  );

function taskIdOf(value: unknown): TaskId | undefined {
  if (typeof value !== 'object' || value === null || !('task_id' in value)) return undefined;
  return taskIdSchema.safeParse(value.task_id).data;
}

let stampedMs = Number.NaN;
let stamp = '';

/** ISO 8601 in UTC with milliseconds; all frames of one millisecond share the text. */
function isoTime(atMs: number): string {
  if (atMs !== stampedMs) {
    stamp = new Date(atMs).toISOString();
    stampedMs = atMs;
  }
  return stamp;
}

// The sockets of a session are given the same frame one after the other: encode it once.
let lastText: { readonly frame: Frame; readonly text: string } | undefined;
let lastBytes: { readonly frame: Frame; readonly bytes: Uint8Array } | undefined;

/** A frame as it stands on the wire, `{"type","seq"?,"ts","task_id"?,"data"}`; absent fields are left out. */
export function encodeFrame(frame: Frame, format: 'json'): string;
export function encodeFrame(frame: Frame, format: 'msgpack'): Uint8Array;
export function encodeFrame(frame: Frame, format: Format): string | Uint8Array;
export function encodeFrame(frame: Frame, format: Format): string | Uint8Array {
  if (format === 'json') {
    if (frame instanceof CrossedFrame) return frame.text;
    if (lastText?.frame !== frame) lastText = { frame, text: frameText(frame) };
    return lastText.text;
  }
  if (lastBytes?.frame !== frame) lastBytes = { frame, bytes: plain.pack(wire(frame)) };
  return lastBytes.bytes;
}

/** A frame that its owner wrote on another node: for most sockets it is not read here at all. */
class CrossedFrame implements Frame {
  readonly type: string;
  readonly seq: number | undefined;
  readonly atMs: number;
  readonly taskId: string | undefined;
  readonly text: string;
  #data: { readonly value: unknown } | undefined;

  constructor({ type, seq, atMs, taskId, text }: CrossingFrame) {
    this.type = type;
    this.seq = seq;
    this.atMs = atMs;
    this.taskId = taskId;
    this.text = text;
  }

  get data(): unknown {
    this.#data ??= { value: dataOf(this.text) };
    return this.#data.value;
  }
}

/** Not within the limits of what clients say: a snapshot is as long as its conversation. */
function dataOf(text: string): unknown {
  const value: unknown = MANY_DIGITS.test(text) ? parseExactly(text) : JSON.parse(text);
  return Reflect.get(Object(value), 'data');
}

/** Where there are none, no number needs to be read digit by digit. */
const MANY_DIGITS = /\d{16}/;

let lastCrossed: { readonly crossing: CrossingFrame; readonly frame: Frame } | undefined;

/** The frame that crossed from another node; the same for all clients that are given it one after the other. */
export function crossedFrame(crossing: CrossingFrame): Frame {
  if (lastCrossed?.crossing === crossing) return lastCrossed.frame;
  const frame = new CrossedFrame(crossing);
  lastCrossed = { crossing, frame };
  return frame;
}

/** What stands behind `"messages":[` of a snapshot without messages, by format: in msgpack the list's own head. */
const AFTER_LIST = { json: 3, msgpack: 1 } as const;

/**
 * A snapshot's bytes as `encodeFrame` would make them, one piece for each step: its head, then one message after the
 * other. A long conversation in one step would hold the loop for tens of milliseconds.
 */
export function* encodeSnapshot(
  frame: SnapshotFrame,
  format: Format,
): Generator<Uint8Array, void, undefined> {
  const { messages } = frame.data;
  const whole = encodeFrame({ ...frame, data: { messages: [] } }, format);
  const head = typeof whole === 'string' ? Buffer.from(whole) : whole;
  const end = head.subarray(head.length - AFTER_LIST[format]);
  yield head.subarray(0, head.length - AFTER_LIST[format]);
  if (format === 'msgpack') yield listHead(messages.length);
  for (const [at, message] of messages.entries())
    yield format === 'json'
      ? Buffer.from(`${at > 0 ? ',' : ''}${JSON.stringify(message)}`)
      : plain.pack(message);
  if (format === 'json') yield end;
}

export type SnapshotFrame = Frame & { readonly data: { readonly messages: readonly unknown[] } };

/** The head of a msgpack list of that many values. */
function listHead(length: number): Uint8Array {
  if (length < 16) return Uint8Array.of(0x90 | length);
  if (length < 65_536) return Uint8Array.of(0xdc, length >> 8, length & 255);
  return Uint8Array.of(0xdd, length >>> 24, (length >> 16) & 255, (length >> 8) & 255, length & 255);
}

const wire = (frame: Frame) => ({
  type: frame.type,
  seq: frame.seq,
  ts: isoTime(frame.atMs),
  task_id: frame.taskId,
  data: frame.data ?? {},
});

// By hand it takes two thirds of what JSON.stringify takes for the whole.
function frameText(frame: Frame): string {
  const seq = frame.seq === undefined ? '' : `,"seq":${frame.seq}`;
  const task = frame.taskId === undefined ? '' : `,"task_id":${JSON.stringify(frame.taskId)}`;
  const data = JSON.stringify(frame.data ?? {});
  return `{"type":${JSON.stringify(frame.type)}${seq},"ts":"${isoTime(frame.atMs)}"${task},"data":${data}}`;
}

// --- Actions -----------------------------------------------------------------------------------------------

/** What became of a body: its value, or why it is refused, with those of the envelope's fields that can be read. */
export type Body = Raw & { readonly format: Format; readonly fields?: Fields };

type RefusedAction = Extract<ParsedAction, { readonly ok: false }> & {
  /** As far as it can be read: who is to be told. */
  readonly envelope: DomainAction | undefined;
};

export type DecodedAction = (Extract<ParsedAction, { readonly ok: true }> | RefusedAction) & {
  readonly format: Format;
};

/**
 * Reads a DomainAction off a queue; JSON and msgpack are told apart by the first byte, and `format` says which it
 * was, so that a reply can have the same. `now` and `newId` as in parseDomainAction, which `read` stands in for.
 */
export const decodeAction = (
  bytes: Uint8Array,
  now: number,
  newId: () => string,
  read = parseDomainAction,
): DecodedAction => actionOf(readBody(bytes), now, newId, read);

/** The first half of decodeAction: from bytes to a value. */
export function readBody(given: Uint8Array): Body {
  const bytes = withoutMark(given);
  const format = startsLikeJson(bytes) ? 'json' : 'msgpack';
  const raw =
    bytes.length > MAX_ACTION_BYTES ? bad(`larger than ${MAX_ACTION_BYTES} bytes`) : decode(bytes, format);
  if (raw.ok) return { ok: true, value: raw.value, format };
  return { ...raw, format, fields: envelopeFields(bytes) };
}

/** The envelope's fields in a body, or in its beginning, as far as they can be read. */
export function envelopeFields(given: Uint8Array): Fields {
  const bytes = withoutMark(given);
  const format = startsLikeJson(bytes) ? 'json' : 'msgpack';
  const fieldsOf = format === 'json' ? jsonFields : msgpackFields;
  return fieldsOf(bytes, ENVELOPE_NAMES, (value) => valueIn(value, format));
}

function valueIn(bytes: Uint8Array, format: Format): unknown {
  const raw = decode(bytes, format);
  return raw.ok ? raw.value : undefined;
}

/** The second half. */
export function actionOf(
  body: Body,
  now: number,
  newId: () => string,
  read: typeof parseDomainAction,
): DecodedAction {
  const { format } = body;
  const parsed = body.ok ? read(body.value, now, newId) : refuseAction(body.problem);
  if (parsed.ok) return { ok: true, action: parsed.action, idGiven: parsed.idGiven, format };
  return { ...parsed, format, envelope: readableEnvelope(body.ok ? body.value : body.fields, now, newId) };
}

const refuseAction = (problem: string): Extract<ParsedAction, { ok: false }> => ({
  ok: false,
  error: refusal('INVALID_REQUEST', { message: `The action is malformed: ${problem}.` }),
});

/** A message as bytes for a queue; absent fields are left out. */
export function encodeAction(message: Sendable, format: Format): Uint8Array {
  return format === 'json' ? Buffer.from(JSON.stringify(message)) : plain.pack(message);
}

/** What one bundle of another node may be: a snapshot is one text, and may be long. */
const MAX_PEER_BYTES = 32 * 1024 * 1024;
const MAX_PEER_WEIGHT = 1_000_000;

/** A plain value as bytes for another node; absent fields are left out. */
export const encodePlain = (value: unknown): Buffer => plain.pack(value);

/** A plain value out of what should be another node's bytes; undefined where it can be none. */
export function decodePlain(bytes: Uint8Array): unknown {
  if (bytes.length > MAX_PEER_BYTES) return undefined;
  if (msgpackProblem(bytes, undefined, MAX_PEER_WEIGHT) !== null) return undefined;
  try {
    return plain.unpack(bytes);
  } catch {
    return undefined;
  }
}

/** Encodes actions between nodes. Reads nothing but what `encode` of the same version wrote. */
interface PeerCodec {
  encode(action: DomainAction): Uint8Array;
  decode(bytes: Uint8Array, now: number, newId: () => string): ParsedAction;
}

/**
 * A codec for actions from node to node: the envelope is a record whose fields both sides know (its first byte is
 * 0x40), the data are plain maps. Structures are fixed: ones learned from data would grow with every new key.
 */
export function createPeerCodec(): PeerCodec {
  let envelope: unknown;
  const packr = new Packr({
    ...PLAIN,
    structures: [[...ENVELOPE_FIELDS]],
    maxSharedStructures: 1,
    maxOwnStructures: 0,
    useRecords: (value: unknown) => value === envelope,
  });
  const sizes = [ENVELOPE_FIELDS.length];
  return {
    encode(action) {
      envelope = record(action);
      const bytes = packr.pack(envelope);
      envelope = undefined;
      return bytes;
    },
    decode(bytes, now, newId) {
      if (bytes.length > MAX_ACTION_BYTES) return refuseAction(`larger than ${MAX_ACTION_BYTES} bytes`);
      const problem = msgpackProblem(bytes, sizes);
      if (problem !== null) return refuseAction(problem);
      try {
        return parseDomainAction(packr.unpack(bytes), now, newId);
      } catch {
        return refuseAction('not valid msgpack');
      }
    },
  };
}

/** The envelope with every field present and in the agreed order; absent ones are nil on the wire. */
const record = (action: DomainAction) => ({
  action_id: action.action_id,
  action_type: action.action_type,
  task_id: action.task_id,
  tenant_id: action.tenant_id,
  tenant_tier: action.tenant_tier,
  session_id: action.session_id,
  user_id: action.user_id,
  agent_id: action.agent_id,
  correlation_id: action.correlation_id,
  trace_id: action.trace_id,
  data: action.data,
  metadata: action.metadata,
  callback_queue: action.callback_queue,
  timeout: action.timeout,
  timestamp: action.timestamp,
});
