/**
 * Bundles as bytes: `[version, from, link id, n, items]` in msgpack. Frames are lists, and their text is the JSON that
 * their owner made once; any other item is a JSON text, so that whatever a client may say crosses as it was said.
 */
import {
  type Attachment,
  type Bundle,
  type CrossingFrame,
  type FramesItem,
  type InboxProblem,
  LINKS_VERSION,
  type LinkItem,
  readItem,
} from '../../src/ports/links.ts';
import { decodePlain, encodePlain } from './codec.ts';

export const encodeBundle = ({ from, linkId, n, items }: Bundle): Buffer =>
  encodePlain([LINKS_VERSION, from, linkId, n, items.map(written)]);

const written = (item: LinkItem): unknown =>
  item.kind === 'frames'
    ? [item.to, item.frames.map(({ seq, type, atMs, taskId, text }) => [seq, type, atMs, taskId, text])]
    : JSON.stringify(item);

/** What was read; `newer` and `malformed`: how many items were dropped as such. */
type DecodedBundle =
  | { readonly ok: true; readonly bundle: Bundle; readonly newer: number; readonly malformed: number }
  | { readonly ok: false; readonly problem: InboxProblem };

/** Reads what stands in an inbox, whoever wrote it. One item that can not be read is dropped, and the others are not. */
export function decodeBundle(bytes: Uint8Array): DecodedBundle {
  const value = decodePlain(bytes);
  if (!Array.isArray(value)) return { ok: false, problem: 'malformed' };
  const [version, from, linkId, n, written]: readonly unknown[] = value;
  if (!isCount(version)) return { ok: false, problem: 'malformed' };
  if (version > LINKS_VERSION) return { ok: false, problem: 'newer' };
  if (!isCount(from) || typeof linkId !== 'string' || !isCount(n) || !Array.isArray(written))
    return { ok: false, problem: 'malformed' };
  const items: LinkItem[] = [];
  const dropped = { newer: 0, malformed: 0 };
  for (const each of written) {
    const item = readWritten(each);
    if (typeof item === 'object') items.push(item);
    else dropped[item] += 1;
  }
  return { ok: true, bundle: { from, linkId, n, items }, ...dropped };
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;

function readWritten(written: unknown): LinkItem | InboxProblem {
  if (typeof written !== 'string') return readFrames(written) ?? 'malformed';
  let value: unknown;
  try {
    value = JSON.parse(written);
  } catch {
    return 'malformed';
  }
  return readItem(value) ?? 'newer';
}

/** By hand: this is what most of a link's bytes are, and a schema would cost more than the rest of the way. */
function readFrames(written: unknown): FramesItem | undefined {
  if (!Array.isArray(written)) return undefined;
  const [to, frames]: readonly unknown[] = written;
  if (!Array.isArray(to) || !Array.isArray(frames) || !to.every(isAttachment)) return undefined;
  const read: CrossingFrame[] = [];
  for (const each of frames) {
    const frame = readFrame(each);
    if (!frame) return undefined;
    read.push(frame);
  }
  return { kind: 'frames', to, frames: read };
}

function isAttachment(value: unknown): value is Attachment {
  return Array.isArray(value) && typeof value[0] === 'string' && isCount(value[1]);
}

function readFrame(value: unknown): CrossingFrame | undefined {
  if (!Array.isArray(value)) return undefined;
  const [seq, type, atMs, taskId, text]: readonly unknown[] = value;
  if (typeof type !== 'string' || typeof atMs !== 'number' || typeof text !== 'string') return undefined;
  if ((seq !== null && !isCount(seq)) || (taskId !== null && typeof taskId !== 'string')) return undefined;
  return { seq: seq ?? undefined, type, atMs, taskId: taskId ?? undefined, text };
}
