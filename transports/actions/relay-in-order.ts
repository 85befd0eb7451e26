/** Hands over what was kept in the order in which the writes were called, in whatever order the store answers. */
import type { Outgoing } from '../../src/action-ports.ts';
import { RefusalError } from '../../src/domain/errors.ts';
import type { WriteOutcome } from '../../src/ports.ts';
import type { Lines } from './relay-lines.ts';

interface Slot {
  readonly outgoing: readonly Outgoing[];
  state: 'writing' | 'stored' | 'unknown' | 'none';
}

export interface InOrder {
  /** Called with every write that has something to send, in the tick of its commit. Returns the same result. */
  watch(outgoing: readonly Outgoing[], result: Promise<WriteOutcome>): Promise<WriteOutcome>;
}

/** A write that the store gave up may be carried out all the same: its queues are read from the store. */
export function createInOrder(lines: Pick<Lines, 'post' | 'fall'>): InOrder {
  const slots = new Set<Slot>();

  function release(): void {
    for (const slot of slots) {
      if (slot.state === 'writing') return;
      slots.delete(slot);
      if (slot.state === 'stored') slot.outgoing.forEach(lines.post);
      if (slot.state !== 'unknown') continue;
      for (const { queue } of slot.outgoing) if (queue !== undefined) lines.fall(queue);
    }
  }

  return {
    async watch(outgoing, result) {
      if (outgoing.length === 0) return result;
      const slot: Slot = { outgoing, state: 'writing' };
      slots.add(slot);
      try {
        const outcome = await result;
        slot.state = outcome === 'stored' ? 'stored' : 'none';
        return outcome;
      } catch (error) {
        slot.state = error instanceof RefusalError ? 'unknown' : 'none';
        throw error;
      } finally {
        release();
      }
    },
  };
}
