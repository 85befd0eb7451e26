/** The outbox of the store in memory: what is still to be sent, and what was answered to which action. */
import type { TenantId } from '../../../src/domain/ids.ts';
import type { ActionLog, Outgoing, Unsent } from '../../../src/ports/store.ts';
import { checkOutgoing } from '../../../src/store/text.ts';

interface Entry extends Unsent {
  readonly keptAtMs: number;
  unsent: boolean;
}

type Answered = Awaited<ReturnType<ActionLog['answered']>>;

/** The deeds of Store's writes about outgoing messages, and ActionLog's questions. */
export interface MemoryOutgoing {
  /** Throws where one of them can not be kept; then none is. */
  keep(outgoing: readonly Outgoing[]): void;
  sent(sent: readonly { readonly tenantId: TenantId; readonly id: string }[]): void;
  expire(beforeMs: number): void;
  answered(tenantId: TenantId, actionId: string): Answered;
  unsent(afterSeq: number, limit: number): readonly Unsent[];
}

/** Makes an empty outbox; `now` gives the time at which a message is kept, in ms since the epoch. */
export function createMemoryOutgoing(now: () => number): MemoryOutgoing {
  let lastSeq = 0;
  const entries = new Map<string, Entry>();
  /** By tenant and action, oldest first. */
  const answers = new Map<string, readonly Entry[]>();
  /** By `seq`, which is also the order in which they were set. */
  const waiting = new Map<number, Entry>();

  function keepOne(outgoing: Outgoing): void {
    const key = keyOf(outgoing.tenantId, outgoing.id);
    if (entries.has(key)) return;
    lastSeq += 1;
    const unsent = outgoing.queue !== undefined;
    const entry: Entry = { seq: lastSeq, outgoing, keptAtMs: now(), unsent };
    entries.set(key, entry);
    if (unsent) waiting.set(entry.seq, entry);
    if (outgoing.answers === undefined) return;
    const action = keyOf(outgoing.tenantId, outgoing.answers);
    answers.set(action, [...(answers.get(action) ?? []), entry]);
  }

  function forget(entry: Entry): void {
    const { tenantId, id, answers: actionId } = entry.outgoing;
    entries.delete(keyOf(tenantId, id));
    waiting.delete(entry.seq);
    if (actionId === undefined) return;
    const action = keyOf(tenantId, actionId);
    const left = (answers.get(action) ?? []).filter((each) => each !== entry);
    if (left.length > 0) answers.set(action, left);
    else answers.delete(action);
  }

  return {
    keep(outgoing) {
      outgoing.forEach(checkOutgoing);
      outgoing.forEach(keepOne);
    },
    sent(sent) {
      for (const { tenantId, id } of sent) {
        const entry = entries.get(keyOf(tenantId, id));
        if (!entry) continue;
        if (entry.outgoing.answers === undefined) forget(entry);
        entry.unsent = false;
        waiting.delete(entry.seq);
      }
    },
    expire(beforeMs) {
      for (const entry of entries.values()) if (!entry.unsent && entry.keptAtMs < beforeMs) forget(entry);
    },
    answered: (tenantId, actionId) => answers.get(keyOf(tenantId, actionId))?.[0]?.outgoing ?? null,
    unsent(afterSeq, limit) {
      const found: Unsent[] = [];
      for (const { seq, outgoing } of waiting.values()) {
        if (found.length >= limit) break;
        if (seq > afterSeq) found.push({ seq, outgoing });
      }
      return found;
    },
  };
}

/** A tenant's id holds no spaces. */
const keyOf = (tenantId: TenantId, id: string): string => `${tenantId} ${id}`;
