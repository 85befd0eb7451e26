/** Books of actions that were sent and of callbacks that came: what is missing, what came twice, what failed. */

export interface Callback {
  /** Of the action it answers. */
  readonly correlationId: string;
  /** The reply's own `action_id`: the same reply sent again has the same. */
  readonly replyId: string;
  /** Undefined: it succeeded. */
  readonly errorCode: string | undefined;
}

export interface Balance {
  readonly sent: number;
  readonly answered: number;
  /** Sent, and no callback came. */
  readonly lost: number;
  /** Callbacks that came again with the same reply id: at least once is what was promised. */
  readonly duplicated: number;
  /** Callbacks with another reply id for an action that was answered before: it ran, or was refused, twice. */
  readonly contradicted: number;
  /** Callbacks for what nobody sent. */
  readonly foreign: number;
  /** First answers that were errors, by code. */
  readonly errors: Readonly<Record<string, number>>;
  /** ms from the sending to the first callback. */
  readonly tookMs: readonly number[];
}

export interface Ledger {
  sent(correlationId: string, atMs: number): void;
  came(callback: Callback, atMs: number): void;
  /** Sent and not yet answered. */
  open(): number;
  balance(): Balance;
}

export function createLedger(): Ledger {
  const sentMs = new Map<string, number>();
  /** Reply ids of what was answered. */
  const replies = new Map<string, string>();
  const errors: Record<string, number> = {};
  const tookMs: number[] = [];
  let duplicated = 0;
  let contradicted = 0;
  let foreign = 0;
  return {
    sent(correlationId, atMs) {
      sentMs.set(correlationId, atMs);
    },
    came({ correlationId, replyId, errorCode }, atMs) {
      const fromMs = sentMs.get(correlationId);
      const before = replies.get(correlationId);
      if (fromMs === undefined) foreign += 1;
      else if (before === undefined) {
        replies.set(correlationId, replyId);
        tookMs.push(atMs - fromMs);
        if (errorCode !== undefined) errors[errorCode] = (errors[errorCode] ?? 0) + 1;
      } else if (before === replyId) duplicated += 1;
      else contradicted += 1;
    },
    open: () => sentMs.size - replies.size,
    balance: () => ({
      ...{ sent: sentMs.size, answered: replies.size, lost: sentMs.size - replies.size },
      ...{ duplicated, contradicted, foreign, errors, tookMs },
    }),
  };
}
