/** Sends one kept message, and says whether anything is left to do about it. */
import type { Outgoing } from '../../src/action-ports.ts';
import { RefusalError } from '../../src/domain/errors.ts';
import type { Log } from '../../src/ports.ts';
import type { Transport } from '../../src/transport-ports.ts';
import type { Acks } from './relay-acks.ts';

/** Messages remembered after they were sent, so that one found in the store, or kept anew, is not sent again. */
const MAX_REMEMBERED = 10_000;

/** True: it is settled, sent or given up, or another call is at it. False: not now. Never rejects. */
export type SendKept = (outgoing: Outgoing) => Promise<boolean>;

export interface SendDeps {
  readonly transport: Pick<Transport, 'send'>;
  readonly acks: Acks;
  readonly log: Log;
}

/**
 * What is refused and may be taken later is for the caller to send again. What never will be taken (too large, no such
 * queue, not to be encoded) is logged and counts as sent: it must not stand in the way of the rest.
 */
export function createSend({ transport, acks, log }: SendDeps): SendKept {
  const known = new Map<string, 'sending' | 'settled'>();

  function remember(key: string): void {
    known.set(key, 'sending');
    const [oldest] = known.size > MAX_REMEMBERED ? known.keys() : [];
    if (oldest !== undefined) known.delete(oldest);
  }

  return async (outgoing) => {
    const key = `${outgoing.tenantId} ${outgoing.id}`;
    const state = known.get(key);
    if (state === 'sending') return true;
    if (state === undefined) {
      remember(key);
      const error = await attempt(transport, outgoing);
      if (error && passes(error)) {
        known.delete(key);
        return false;
      }
      if (error) giveUp(log, outgoing, error);
      if (known.has(key)) known.set(key, 'settled');
    }
    acks.add(outgoing);
    return true;
  };
}

/** Null once the transport has it. Asks it in this tick. */
export async function attempt(
  transport: Pick<Transport, 'send'>,
  { queue, action, format }: Outgoing,
): Promise<Error | null> {
  try {
    if (queue === undefined) return null;
    if (action === undefined) return new Error('there is nothing to send');
    await transport.send(queue, action, format);
    return null;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Whether the same may be taken later. Whatever is no refusal comes of the message itself: it can not be encoded. */
export const passes = (error: Error): boolean => error instanceof RefusalError && error.data.retryable;

export function giveUp(log: Log, { tenantId, id, queue }: Outgoing, error: Error): void {
  log.error({ tenant_id: tenantId, id, queue, err: error }, 'a kept message can never be sent: given up');
}
