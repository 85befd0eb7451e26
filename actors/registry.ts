/** Who lives on this node: tenants, sessions and turns by their ids, so that nobody has to ask a parent. */
import type { SessionId, TaskId, TenantId } from '../src/domain/ids.ts';
import type { Tier } from '../src/domain/tiers.ts';
import type { Client, NodeStats, Outbox } from '../src/ports.ts';
import type { Address } from './actor.ts';
import type { ExecutionMessage } from './execution.ts';
import type { SessionMessage } from './session-state.ts';
import type { TenantMessage } from './tenant.ts';

export interface TenantRef {
  readonly tenantId: TenantId;
  readonly address: Address<TenantMessage>;
  readonly sessions: Set<SessionRef>;
}

export interface SessionRef {
  readonly tenant: TenantRef;
  readonly sessionId: SessionId;
  readonly address: Address<SessionMessage>;
  readonly outbox: Outbox;
  /** Clients whose attach has not been handled yet. */
  readonly arriving: Map<string, Client>;
  /** The execution that runs now. */
  execution: ExecutionRef | null;
}

export interface ExecutionRef {
  readonly taskId: TaskId;
  readonly tier: Tier;
  readonly address: Address<ExecutionMessage>;
  readonly abort: AbortController;
}

interface LiveTurn {
  readonly session: SessionRef;
  readonly tier: Tier;
}

export interface Registry {
  readonly tenants: Map<TenantId, TenantRef>;
  session(tenantId: TenantId, sessionId: SessionId): SessionRef | undefined;
  addSession(session: SessionRef): void;
  /** Forgets a session; a newer one of the same id stays. */
  removeSession(session: SessionRef): void;
  sessions(): Iterable<SessionRef>;
  /** The session a turn lives in, from `said` to its terminal event. */
  turn(tenantId: TenantId, taskId: TaskId): LiveTurn | undefined;
  track(session: SessionRef, taskId: TaskId, tier: Tier): void;
  untrack(session: SessionRef, taskId: TaskId): void;
  liveTurns(): number;
  /** Called whenever the last live turn has gone. */
  onQuiet(listener: () => void): void;
  counts(): Pick<NodeStats, 'tenants' | 'sessions' | 'turns'>;
}

/** No id may hold a slash, so two ids joined by one are unambiguous. */
const keyOf = (tenantId: TenantId, id: SessionId | TaskId): string => `${tenantId}/${id}`;

export function createRegistry(): Registry {
  const tenants = new Map<TenantId, TenantRef>();
  const sessions = new Map<string, SessionRef>();
  const turns = new Map<string, LiveTurn>();
  const quiet: (() => void)[] = [];

  return {
    tenants,
    session: (tenantId, sessionId) => sessions.get(keyOf(tenantId, sessionId)),
    addSession(session) {
      sessions.set(keyOf(session.tenant.tenantId, session.sessionId), session);
      session.tenant.sessions.add(session);
    },
    removeSession(session) {
      const key = keyOf(session.tenant.tenantId, session.sessionId);
      if (sessions.get(key) === session) sessions.delete(key);
      session.tenant.sessions.delete(session);
    },
    sessions: () => sessions.values(),
    turn: (tenantId, taskId) => turns.get(keyOf(tenantId, taskId)),
    track(session, taskId, tier) {
      turns.set(keyOf(session.tenant.tenantId, taskId), { session, tier });
    },
    untrack(session, taskId) {
      const key = keyOf(session.tenant.tenantId, taskId);
      if (turns.get(key)?.session !== session) return;
      turns.delete(key);
      if (turns.size === 0) for (const listener of quiet) listener();
    },
    liveTurns: () => turns.size,
    onQuiet: (listener) => quiet.push(listener),
    counts() {
      const none = () => ({ running: 0, queued: 0 });
      const byTier = { free: none(), advance: none(), professional: none(), enterprise: none() };
      for (const [key, { session, tier }] of turns) {
        const { execution, tenant } = session;
        const runs = execution && key === keyOf(tenant.tenantId, execution.taskId);
        byTier[tier][runs ? 'running' : 'queued'] += 1;
      }
      return { tenants: tenants.size, sessions: sessions.size, turns: byTier };
    },
  };
}
