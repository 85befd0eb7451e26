/**
 * A store in plain Maps, for nodes without a database and for tests. It keeps everything until its session is
 * deleted or the process ends, so its memory grows with every turn: about the size of the records it is given.
 */
import type { Message } from '../../../src/domain/conversation.ts';
import { RefusalError, refusal } from '../../../src/domain/errors.ts';
import type { SessionId, TaskId, TenantId } from '../../../src/domain/ids.ts';
import type { Tier } from '../../../src/domain/tiers.ts';
import type { TurnRecord } from '../../../src/domain/turn.ts';
import type {
  MessagePage,
  PageRequest,
  Store,
  TenantRecord,
  Write,
  WriteOutcome,
} from '../../../src/ports/store.ts';
import { createMemoryOutgoing, type MemoryOutgoing } from './outgoing.ts';

export interface MemoryStoreOptions {
  /** Event-loop turns before an answer; 0 (default) answers in a microtask. */
  readonly delayTurns?: number;
  /** Asked before every access: an error makes it reject and changes nothing. For tests of failing stores. */
  readonly fault?: (access: 'read' | 'write') => Error | undefined;
  /** When outgoing messages are kept, in ms since the epoch; default: the system's clock. */
  readonly now?: () => number;
}

/** A turn with its messages. Records are the caller's own objects: nothing is copied. */
interface StoredTurn {
  turn: TurnRecord;
  readonly asked: Message;
  answer: Message | undefined;
  /** Ended as interrupted, and no client has been told. */
  untold: boolean;
  /** It did, or was about to do, what must not happen twice. */
  effects: boolean;
  /** It ended without having run. */
  unrun: boolean;
}

interface Kept {
  readonly tenants: Map<TenantId, StoredTenant>;
  readonly outgoing: MemoryOutgoing;
}

interface StoredTenant {
  tier: Tier | undefined;
  day: string;
  used: number;
  readonly turns: Map<TaskId, StoredTurn>;
  /** Oldest first, in the order in which turns were accepted. */
  readonly sessions: Map<SessionId, StoredTurn[]>;
}

/**
 * Makes an empty store. Writes take effect in the order of the calls, reads see every write called before them.
 * A page never holds more messages than asked for, and parts a turn's messages only where one turn alone is more.
 */
export function createMemoryStore(options: MemoryStoreOptions = {}): Store {
  const tenants = new Map<TenantId, StoredTenant>();
  const outgoing = createMemoryOutgoing(options.now ?? Date.now);
  const delayTurns = options.delayTurns ?? 0;
  let closed = false;

  /** Deeds are done at once, so that calls keep their order; only the answer waits. */
  async function answer<T>(access: 'read' | 'write', deed: () => T): Promise<T> {
    const fault = closed ? closedError() : options.fault?.(access);
    const result = fault ? undefined : { value: deed() };
    if (delayTurns === 0) await null;
    for (let turn = 0; turn < delayTurns; turn += 1) await nextLoopTurn();
    if (!result) throw fault;
    return result.value;
  }

  return {
    tenant: (tenantId, day) => answer('read', () => tenantRecord(tenants.get(tenantId), tenantId, day)),
    session: (tenantId, sessionId, page) =>
      answer('read', () => {
        const turns = tenants.get(tenantId)?.sessions.get(sessionId);
        return turns ? pageOf(turns, page) : null;
      }),
    turn: (tenantId, taskId) => answer('read', () => tenants.get(tenantId)?.turns.get(taskId)?.turn ?? null),
    commit: (write) => answer('write', () => apply({ tenants, outgoing }, write)),
    answered: (tenantId, actionId) => answer('read', () => outgoing.answered(tenantId, actionId)),
    unsent: (afterSeq, limit) => answer('read', () => outgoing.unsent(afterSeq, limit)),
    ping: () => answer('write', () => undefined),
    close: async () => {
      closed = true;
    },
  };
}

const nextLoopTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const closedError = (): Error =>
  new RefusalError(refusal('STORE_UNAVAILABLE', { message: 'The store is closed.' }));

function tenantRecord(
  tenant: StoredTenant | undefined,
  tenantId: TenantId,
  day: string,
): TenantRecord | null {
  if (!tenant) return null;
  return { tenantId, tier: tenant.tier, day, used: tenant.day === day ? tenant.used : 0 };
}

function apply({ tenants, outgoing }: Kept, write: Write): WriteOutcome {
  switch (write.type) {
    case 'turn-accepted':
      return accept(tenants, write);
    case 'turn-effects':
      affect(tenants.get(write.tenantId), write.taskId);
      return 'stored';
    case 'turn-ended':
      return end(tenants.get(write.turn.tenantId), outgoing, write);
    case 'outgoing':
      outgoing.keep(write.outgoing);
      return 'stored';
    case 'outgoing-sent':
      outgoing.sent(write.sent);
      return 'stored';
    case 'outgoing-expired':
      outgoing.expire(write.beforeMs);
      return 'stored';
    case 'session-deleted':
      forget(tenants.get(write.tenantId), write.sessionId);
      return 'stored';
    case 'turn-overtaken':
      overtake(tenants.get(write.tenantId), write.taskId);
      return 'stored';
    case 'turn-notified':
      tell(tenants.get(write.tenantId), write.taskId);
      return 'stored';
    case 'tenant-tier':
      tenantOf(tenants, write.tenantId).tier = write.tier;
      return 'stored';
    case 'unfinished-interrupted':
      for (const tenant of tenants.values()) interrupt(tenant, write.atMs);
      return 'stored';
    case 'history-expired':
      for (const tenant of tenants.values())
        if (tenant.tier === (write.tier ?? undefined)) expire(tenant, write.beforeMs);
      return 'stored';
  }
}

/** The tenant, made where it is not known yet. */
function tenantOf(tenants: Map<TenantId, StoredTenant>, tenantId: TenantId): StoredTenant {
  const known = tenants.get(tenantId);
  if (known) return known;
  const tenant: StoredTenant = {
    tier: undefined,
    day: '',
    used: 0,
    turns: new Map<TaskId, StoredTurn>(),
    sessions: new Map<SessionId, StoredTurn[]>(),
  };
  tenants.set(tenantId, tenant);
  return tenant;
}

function accept(
  tenants: Map<TenantId, StoredTenant>,
  write: Extract<Write, { type: 'turn-accepted' }>,
): WriteOutcome {
  const { tenantId, sessionId, taskId } = write.turn;
  const tenant = tenantOf(tenants, tenantId);
  const known = tenant.turns.get(taskId);
  if (known) return write.resumable && resume(known, write.turn) ? 'stored' : 'duplicate';
  const stored: StoredTurn = {
    turn: write.turn,
    asked: write.message,
    answer: undefined,
    untold: false,
    effects: false,
    unrun: false,
  };
  tenant.turns.set(taskId, stored);
  const session = tenant.sessions.get(sessionId);
  if (session) session.push(stored);
  else tenant.sessions.set(sessionId, [stored]);
  if (write.day > tenant.day) {
    tenant.day = write.day;
    tenant.used = 0;
  }
  if (write.day === tenant.day) tenant.used += 1;
  return 'stored';
}

/** Lets a turn that was interrupted go on, with its question and its age. False where it may not. */
function resume(stored: StoredTurn, turn: TurnRecord): boolean {
  if (!stored.untold || stored.effects || stored.turn.sessionId !== turn.sessionId) return false;
  stored.turn = { ...turn, createdAtMs: stored.turn.createdAtMs };
  stored.untold = false;
  return true;
}

function affect(tenant: StoredTenant | undefined, taskId: TaskId): void {
  const stored = tenant?.turns.get(taskId);
  if (stored) stored.effects = true;
}

/**
 * An end comes once: repeated it changes nothing. For a turn that was deleted meanwhile there is nothing to change,
 * but who waits for its answer gets it.
 */
function end(
  tenant: StoredTenant | undefined,
  outgoing: MemoryOutgoing,
  write: Extract<Write, { type: 'turn-ended' }>,
): WriteOutcome {
  const stored = tenant?.turns.get(write.turn.taskId);
  if (stored && stored.turn.finishedAtMs !== undefined) return 'duplicate';
  if (write.outgoing) outgoing.keep(write.outgoing);
  if (!stored) return 'stored';
  const { createdAtMs } = stored.turn;
  stored.turn = write.turn.createdAtMs === createdAtMs ? write.turn : { ...write.turn, createdAtMs };
  stored.answer = write.message;
  stored.unrun = write.unrun === true;
  return 'stored';
}

function forget(tenant: StoredTenant | undefined, sessionId: SessionId): void {
  for (const stored of tenant?.sessions.get(sessionId) ?? []) tenant?.turns.delete(stored.turn.taskId);
  tenant?.sessions.delete(sessionId);
}

function overtake(tenant: StoredTenant | undefined, taskId: TaskId): void {
  const stored = tenant?.turns.get(taskId);
  const turns = stored && tenant?.sessions.get(stored.turn.sessionId);
  if (!stored || !turns) return;
  turns.splice(turns.indexOf(stored), 1);
  turns.push(stored);
}

function tell(tenant: StoredTenant | undefined, taskId: TaskId): void {
  const stored = tenant?.turns.get(taskId);
  if (stored) stored.untold = false;
}

function interrupt(tenant: StoredTenant, atMs: number): void {
  for (const stored of tenant.turns.values()) {
    if (stored.turn.finishedAtMs !== undefined) continue;
    stored.turn = { ...stored.turn, status: 'failed', finishedAtMs: atMs, error: refusal('INTERRUPTED') };
    stored.untold = true;
  }
}

function expire(tenant: StoredTenant, beforeMs: number): void {
  for (const [sessionId, turns] of tenant.sessions) {
    const young = turns.some((stored) => (stored.answer ?? stored.asked).atMs >= beforeMs);
    if (!young) forget(tenant, sessionId);
  }
}

/** Walks back from the newest turn that may be shown: pages hold whole turns, so that `before` skips nothing. */
function pageOf(turns: readonly StoredTurn[], page: PageRequest): MessagePage {
  const end =
    page.before === undefined
      ? turns.length
      : turns.findIndex((stored) => stored.turn.taskId === page.before);
  const messages: Message[] = [];
  let from = end;
  while (from > 0) {
    const stored = turns[from - 1];
    const both = stored ? messagesOf(stored) : [];
    if (messages.length + both.length > page.limit) break;
    messages.unshift(...both);
    from -= 1;
  }
  const cut = turns[end - 1];
  if (messages.length === 0 && cut && page.limit > 0) messages.push(...messagesOf(cut).slice(-page.limit));
  const interrupted = turns.filter((stored) => stored.untold).map((stored) => stored.turn);
  return { messages, hasMore: from > 0, ...(interrupted.length > 0 ? { interrupted } : {}) };
}

const messagesOf = (stored: StoredTurn): readonly Message[] =>
  stored.unrun ? [] : stored.answer ? [stored.asked, stored.answer] : [stored.asked];
