/** The store: what must outlive an actor, how it is written, and what is read back. */
import type { Message } from '../domain/conversation.ts';
import type { DomainAction } from '../domain/domain-action.ts';
import type { SessionId, TaskId, TenantId } from '../domain/ids.ts';
import type { QueueName } from '../domain/queues.ts';
import type { ReplySpec } from '../domain/reply-spec.ts';
import type { Tier } from '../domain/tiers.ts';
import type { TurnRecord } from '../domain/turn.ts';
import type { ActionFormat } from './transport.ts';

/**
 * An entry of the transactional outbox. It is written with what it tells of (Write) and sent at least once, in the
 * order in which a queue's entries were stored.
 */
export interface Outgoing {
  readonly tenantId: TenantId;
  /** Unique in the tenant, and `action.action_id` where there is an action: its receivers deduplicate by it. */
  readonly id: string;
  /** The `action_id` that this answers. It outlives the sending: the same action again is answered with it. */
  readonly answers: string | undefined;
  /** Undefined: nobody waits for it; it is stored for `answers` alone. */
  readonly queue: QueueName | undefined;
  readonly format: ActionFormat;
  readonly action: DomainAction | undefined;
}

/** One that has not been sent, by its place in the order. */
export interface Unsent {
  readonly seq: number;
  readonly outgoing: Outgoing;
}

/**
 * The stored side of the outbox; its writes go through Store.commit (`outgoing`, `outgoing-sent`,
 * `outgoing-expired`, and with `turn-ended`). An id that is there already is left as it is.
 */
export interface ActionLog {
  /** What was answered to an action, or null where it is not known to have been worked on. */
  answered(tenantId: TenantId, actionId: string): Promise<Outgoing | null>;
  /** At most `limit` that have a queue and were not sent, of all tenants, those behind `afterSeq`, oldest first. */
  unsent(afterSeq: number, limit: number): Promise<readonly Unsent[]>;
}

export interface MessagePage {
  readonly messages: readonly Message[];
  readonly hasMore: boolean;
  /** Unnotified turns: a stopped process left them unfinished, and no client has been told (`turn-notified`). */
  readonly interrupted?: readonly TurnRecord[];
}

export interface PageRequest {
  readonly limit: number;
  /** Messages older than those of this turn. */
  readonly before: TaskId | undefined;
}

export interface TenantRecord {
  readonly tenantId: TenantId;
  /** Absent where nobody set one. */
  readonly tier: Tier | undefined;
  /** Requests accepted today (UTC). */
  readonly day: string;
  readonly used: number;
}

/**
 * The number of one ownership of a session: a node that claims it is given one that never comes again, and every write
 * of the session carries it. Compared for equality only. Runs with a session of their own are not claimed: they have
 * the negated boot, which no other boot has.
 */
export type Epoch = number;

/**
 * What a session writes is stored only while its node owns it by this epoch, or it is of a turn that was accepted by it.
 * Absent: of who has the database to itself.
 */
interface Fenced {
  readonly epoch?: Epoch | undefined;
}

/** Something to store. Each is atomic by itself. */
export type Write =
  /**
   * A turn was accepted, with its user message, and counted against `day`. `resumable`: where the session has an
   * unnotified turn of this id that had no effects (`turn-effects`), that one goes on running instead of being a
   * duplicate. Its message stays, and it is not counted twice. `most`: as many as the tenant may have counted on that day,
   * whichever node stores them; one beyond is `over`.
   */
  | (Fenced & {
      readonly type: 'turn-accepted';
      readonly turn: TurnRecord;
      readonly message: Message;
      readonly day: string;
      readonly most?: number;
      readonly resumable?: true;
    })
  /** A turn is about to do something that must not happen twice. */
  | (Fenced & { readonly type: 'turn-effects'; readonly tenantId: TenantId; readonly taskId: TaskId })
  /**
   * A turn ended; `message` is the answer, or what there was of it (`partial` where the turn failed). `outgoing` is what is to be sent for it. `asked`,
   * `tier` and `replies` are not stored: they are for who makes `outgoing`.
   */
  | (Fenced & {
      readonly type: 'turn-ended';
      readonly turn: TurnRecord;
      readonly message: Message | undefined;
      readonly outgoing?: readonly Outgoing[];
      readonly asked?: Message;
      readonly tier?: Tier;
      readonly replies?: readonly ReplySpec[];
      /** It never ran: what was said in it leaves the conversation. */
      readonly unrun?: true;
    })
  /**
   * A turn begins to run after one that was accepted later: it takes the last place in its conversation, which is
   * read in the order in which turns ran.
   */
  | (Fenced & { readonly type: 'turn-overtaken'; readonly tenantId: TenantId; readonly taskId: TaskId })
  /** To be sent, without a turn. */
  | { readonly type: 'outgoing'; readonly outgoing: readonly Outgoing[] }
  /** Sent: answers are remembered, the rest is deleted. */
  | {
      readonly type: 'outgoing-sent';
      readonly sent: readonly { readonly tenantId: TenantId; readonly id: string }[];
    }
  /** Answers that were sent, or that nobody waited for, and are older are forgotten. */
  | { readonly type: 'outgoing-expired'; readonly beforeMs: number }
  | (Fenced & {
      readonly type: 'session-deleted';
      readonly tenantId: TenantId;
      readonly sessionId: SessionId;
    })
  /** Its node gives the session up, behind all that it wrote of it: whoever asks next may have it. */
  | {
      readonly type: 'session-released';
      readonly tenantId: TenantId;
      readonly sessionId: SessionId;
      readonly epoch: Epoch;
    }
  /** Clients have been told how an interrupted turn ended. */
  | (Fenced & { readonly type: 'turn-notified'; readonly tenantId: TenantId; readonly taskId: TaskId })
  | { readonly type: 'tenant-tier'; readonly tenantId: TenantId; readonly tier: Tier }
  /** At the start of a node: turns that an earlier process left unfinished end as INTERRUPTED. */
  | { readonly type: 'unfinished-interrupted'; readonly atMs: number }
  /** Sessions of a tier (`null`: of tenants without a tier of their own) whose last message is older are deleted. */
  | { readonly type: 'history-expired'; readonly tier: Tier | null; readonly beforeMs: number };

/**
 * Unless it says `stored`, nothing was written or counted. `duplicate`: the tenant has a turn of that task id already.
 * `fenced`: the session is not this node's by that epoch. `over`: the tenant has its `most` of the day.
 */
export type WriteOutcome = 'stored' | 'duplicate' | 'fenced' | 'over';

/**
 * What must outlive an actor. No method answers in the same tick, any may reject (then nothing was stored).
 * Order: writes take effect in the order of the calls. commit() resolves once the write cannot be lost.
 * close(): finishes what was begun; later calls reject.
 */
export interface Store extends ActionLog {
  tenant(tenantId: TenantId, day: string): Promise<TenantRecord | null>;
  /** Messages newest last, or null where the session is unknown or deleted. */
  session(tenantId: TenantId, sessionId: SessionId, page: PageRequest): Promise<MessagePage | null>;
  turn(tenantId: TenantId, taskId: TaskId): Promise<TurnRecord | null>;
  commit(write: Write): Promise<WriteOutcome>;
  /** Resolves if the store would take a write now. */
  ping(): Promise<void>;
  close(): Promise<void>;
}
