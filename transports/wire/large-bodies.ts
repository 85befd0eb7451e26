/** Large bodies and frames at the edge: held in memory that is used again, and read in turn by tenant, one a turn of the loop. */
import type { TenantId } from '../../src/domain/ids.ts';
import { LoopShare } from '../../src/domain/loop-share.ts';

/** What is no larger is read at once. A larger one takes milliseconds with all that is made of it. */
export const SMALL_BYTES = 16 * 1024;
/** Large ones that are read in one turn of the loop. */
const LARGE_PER_TURN = 1;
/** Rooms that are kept: fresh memory costs a multiple of the copying. */
const KEPT_ROOMS = 16;

export interface LargeBodies {
  /** A copy, in one piece. Whoever has it gives it back with `release`. */
  joined(chunks: readonly Uint8Array[], bytes: number): Buffer;
  release(body: Buffer): void;
  /** Runs what reads a large body in one of the next turns of the loop, tenants one after the other, each in its order. */
  soon(tenantId: TenantId, read: () => void): void;
}

/** For bodies of at most `maxBytes`. */
export function createLargeBodies(maxBytes: number): LargeBodies {
  const share = new LoopShare(LARGE_PER_TURN);
  const free: Buffer[] = [];
  const rooms = new Map<Buffer, Buffer>();
  return {
    joined(chunks, bytes) {
      const isLarge = bytes > SMALL_BYTES;
      const room = isLarge ? (free.pop() ?? Buffer.allocUnsafeSlow(maxBytes)) : Buffer.allocUnsafe(bytes);
      const body = room.subarray(0, bytes);
      let at = 0;
      for (const chunk of chunks) {
        body.set(chunk, at);
        at += chunk.length;
      }
      if (isLarge) rooms.set(body, room);
      return body;
    },
    release(body) {
      const room = rooms.get(body);
      if (!room) return;
      rooms.delete(body);
      if (free.length < KEPT_ROOMS) free.push(room);
    },
    soon: (tenantId, read) => share.soon(tenantId, read),
  };
}
