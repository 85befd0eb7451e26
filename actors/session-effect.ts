/** What a session may decide to have done: data, carried out in effects.ts. */
import type { TurnRecord } from '../src/domain/conversation.ts';
import type { Close, ErrorData } from '../src/domain/errors.ts';
import type { Notice, TurnEvent } from '../src/domain/frames.ts';
import type { TaskId } from '../src/domain/ids.ts';
import type { Tier } from '../src/domain/tiers.ts';
import type { AttachReady, ExecutionPlan, TurnOptions, Write } from '../src/ports.ts';
import type { KeepStep, ReplyTo, SessionState, Slot, Turn } from './session-state.ts';

export type SessionEffect =
  | { readonly type: 'load' }
  | { readonly type: 'enter'; readonly tier: Tier | undefined }
  | ({ readonly type: 'findAgent' } & Pick<Turn, 'taskId' | 'attempt' | 'agentId' | 'agentVersion'>)
  | {
      readonly type: 'claim';
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly slot: Slot;
      readonly tier: Tier | undefined;
      readonly atMs: number;
    }
  | { readonly type: 'acquire'; readonly taskId: TaskId; readonly attempt: number }
  /** Gives back a claim, and the slot it had or had asked for. `refund`: it does not count as a request. */
  | {
      readonly type: 'release';
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly slot: Slot;
      readonly refund: boolean;
    }
  | {
      readonly type: 'keep';
      readonly step: KeepStep;
      readonly taskId: TaskId | undefined;
      readonly write: Write;
      /** Whether the session waits for it; otherwise it goes on at once. */
      readonly wait: boolean;
    }
  | { readonly type: 'execute'; readonly plan: ExecutionPlan; readonly options: TurnOptions }
  | { readonly type: 'abort'; readonly taskId: TaskId }
  | { readonly type: 'event'; readonly taskId: TaskId; readonly event: TurnEvent; readonly atMs: number }
  /** Forgets a turn that was never accepted: what its execution wrote is not sent. */
  | { readonly type: 'discard'; readonly taskId: TaskId }
  | { readonly type: 'reply'; readonly replyTo: ReplyTo; readonly value: unknown }
  | { readonly type: 'attachClient'; readonly clientId: string; readonly ready: AttachReady }
  | { readonly type: 'detachClient'; readonly clientId: string }
  /** Refuses a client that has not been attached. */
  | {
      readonly type: 'turnAway';
      readonly clientId: string;
      readonly error: ErrorData;
      readonly atMs: number;
    }
  | { readonly type: 'notice'; readonly notice: Notice; readonly atMs: number }
  /** Closes all clients, those too that are not attached yet; `told`: after an error. */
  | {
      readonly type: 'closeClients';
      readonly close: Close;
      readonly told: { readonly error: ErrorData; readonly atMs: number } | null;
    }
  /** A turn of this id lives here, or no longer does. */
  | { readonly type: 'track'; readonly taskId: TaskId; readonly tier: Tier }
  | { readonly type: 'untrack'; readonly taskId: TaskId }
  | { readonly type: 'measure'; readonly turn: TurnRecord; readonly tier: Tier }
  | { readonly type: 'refused'; readonly tier: Tier; readonly code: string }
  | { readonly type: 'leave' }
  | { readonly type: 'stop' };

export type SessionStep = readonly [SessionState, readonly SessionEffect[]];
