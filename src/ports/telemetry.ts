/** Time, timers, log and numbers: what every part may be handed. */

import type { ErrorData } from '../domain/errors.ts';
import type { ExecutionInfo } from '../domain/frames.ts';
import type { TenantId } from '../domain/ids.ts';
import type { Tier } from '../domain/tiers.ts';
import type { TurnStatus } from '../domain/turn.ts';

export interface NodeStats {
  readonly tenants: number;
  readonly sessions: number;
  readonly draining: boolean;
  /** Turns, by the tier of their tenant. */
  readonly turns: Readonly<Record<Tier, { readonly running: number; readonly queued: number }>>;
  readonly actors: readonly ActorKindStats[];
  readonly agents?: AgentStats;
}

/** What the actors of one kind have done since the start. */
export interface ActorKindStats {
  readonly kind: string;
  readonly alive: number;
  /** Messages that wait now, in all mailboxes of the kind, and in the fullest there has been. */
  readonly depth: number;
  readonly deepest: number;
  readonly handled: number;
  readonly busyMs: number;
}

/** Configurations held in memory, and how often a turn found its own there or had to wait for it. */
export interface AgentStats {
  readonly live: number;
  readonly hits: number;
  readonly misses: number;
}

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
}

/** Where parts report what happened; cheap enough for the message path, without ids as labels. */
export interface Metrics {
  turnEnded(
    tier: Tier,
    outcome: Exclude<TurnStatus, 'queued' | 'processing'>,
    info: ExecutionInfo | undefined,
  ): void;
  turnRefused(tier: Tier | 'unknown', code: string): void;
  deadLetter(kind: string): void;
  actorCrashed(kind: string): void;
  toolUsed(tool: string, ok: boolean): void;
  modelRetried(provider: string, reason: string): void;
  socketOpened(): void;
  socketClosed(code: number): void;
}

/** Where edges report what they refused. Of all refusals it traces those of access and of rates (401, 403, 429). */
export interface Refusals {
  refused(
    wire: 'http' | 'websocket' | 'service' | 'redis',
    error: ErrorData,
    fields: {
      readonly tenant_id?: TenantId | undefined;
      readonly path?: string | undefined;
      readonly queue?: string | undefined;
      readonly request_id?: string | undefined;
    },
  ): void;
}

/** What is delivered to addresses outside. */
export type DeliveryKind = 'webhook' | 'callback';

/** Where attempts to deliver report how they went. Nothing names a tenant or an address. */
export interface DeliveryMeter {
  /** `retrying`: it failed and is tried again. `dead`: it failed for good. `lost`: it could not even be attempted. */
  deliveryAttempted(kind: DeliveryKind, outcome: 'delivered' | 'retrying' | 'dead' | 'lost'): void;
}

/** Deliveries in the memory of a node. */
export interface DeliveryStats {
  /** Attempts under way. */
  readonly running: number;
  readonly waiting: number;
}

/** Ends of turns that wait for a store which is out, with rough bytes of them, and those that were lost. */
export interface EndStats {
  readonly waiting: number;
  readonly bytes: number;
  readonly lost: number;
}

/** One line of structured log; pino stands behind it. */
export interface Log {
  debug(fields: object, text: string): void;
  info(fields: object, text: string): void;
  warn(fields: object, text: string): void;
  error(fields: object, text: string): void;
}

/** Timers, so that tests can let time pass. */
export interface Timers {
  /** Calls once after `ms`; returns what prevents it. */
  after(ms: number, run: () => void): () => void;
}

export const systemTimers: Timers = {
  after(ms, run) {
    const timer = setTimeout(run, ms).unref();
    return () => clearTimeout(timer);
  },
};

/** Resolves after `ms`, or as soon as the signal is aborted. */
export const pause = (timers: Timers, ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const end = (): void => {
      cancel();
      signal.removeEventListener('abort', end);
      resolve();
    };
    const cancel = timers.after(ms, end);
    signal.addEventListener('abort', end);
    if (signal.aborted) end();
  });
