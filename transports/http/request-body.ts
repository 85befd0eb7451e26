/** The body of a request, which may still be on its way when its route runs. */
import { type ErrorData, RefusalError, refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import { type LargeBodies, SMALL_BYTES } from '../wire/large-bodies.ts';

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

/** The body that `outcome` will be. `onEnd` runs its deed when the exchange is over, at once where it is. */
export function requestBody(
  bodies: LargeBodies,
  outcome: Promise<BodyOutcome>,
  onEnd: (deed: () => void) => void,
): RequestBody {
  const release = (body: Buffer | undefined): void => {
    if (body) bodies.release(body);
  };
  const inTurn = <T>(tenantId: TenantId, task: () => T): Promise<T> =>
    new Promise<void>((resolve) => {
      bodies.soon(tenantId, resolve);
    }).then(task);
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
}

/** Of a request without one. */
export const NO_BODY: RequestBody = { read: async (_tenantId, read) => read(new Uint8Array()) };
