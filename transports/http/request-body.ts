/** The body of a request: bounded, gathered in memory that is used again, and where it is large read in turn by tenant. */
import { type ErrorData, RefusalError, refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import { LoopShare } from '../../src/domain/loop-share.ts';

/** Read at once. A larger body takes milliseconds with all that is made of it. */
const SMALL_BYTES = 16 * 1024;
/** Large bodies that are read in one turn of the loop. */
const LARGE_PER_TURN = 1;
/** Rooms that are kept: fresh memory costs a multiple of the copying. */
const KEPT_ROOMS = 16;

const BROKEN_OFF = refusal('INVALID_REQUEST', { message: 'The body broke off.' });

/** What has arrived of a body: all of it, or why it is not taken; neither where it broke off. */
export interface BodyOutcome {
  readonly body?: Buffer;
  readonly refused?: ErrorData;
  /** Whether the connection must not be used again. */
  readonly close?: boolean;
}

export interface RequestBody {
  /**
   * Gives the whole body, empty where there is none, to `read`, which must keep no reference to it; once. Large ones
   * wait for their turn, tenants one after the other. Rejects with a RefusalError where it is not taken or broke off.
   */
  read<T>(tenantId: TenantId, read: (bytes: Uint8Array) => T): Promise<T>;
}

export interface RequestBodies {
  /** One piece out of several. */
  joined(chunks: readonly Uint8Array[], bytes: number): Buffer;
  /** The body to come. `onEnd` runs its deed when the exchange is over, at once where it is. */
  of(outcome: Promise<BodyOutcome>, onEnd: (deed: () => void) => void): RequestBody;
}

/** The bodies of one server, none larger than `maxBytes`. */
export function createRequestBodies(maxBytes: number): RequestBodies {
  const share = new LoopShare(LARGE_PER_TURN);
  const free: Buffer[] = [];
  const rooms = new Map<Buffer, Buffer>();

  const release = (body: Buffer | undefined): void => {
    const room = body && rooms.get(body);
    if (!room) return;
    rooms.delete(body);
    if (free.length < KEPT_ROOMS) free.push(room);
  };
  const inTurn = <T>(tenantId: TenantId, task: () => T): Promise<T> =>
    new Promise((resolve, reject) => {
      share.soon(tenantId, () => {
        try {
          resolve(task());
        } catch (error) {
          reject(error);
        }
      });
    });

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
    of(outcome, onEnd) {
      let isRead = false;
      onEnd(() => {
        if (!isRead) void outcome.then(({ body }) => release(body));
      });
      return {
        async read(tenantId, read) {
          isRead = true;
          const { body, refused } = await outcome;
          if (refused || !body) throw new RefusalError(refused ?? BROKEN_OFF);
          try {
            return await (body.length > SMALL_BYTES ? inTurn(tenantId, () => read(body)) : read(body));
          } finally {
            release(body);
          }
        },
      };
    },
  };
}

/** Of a request without one. */
export const NO_BODY: RequestBody = { read: async (_tenantId, read) => read(new Uint8Array()) };
