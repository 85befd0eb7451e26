/** What is to happen on every node of a database: it is done here, and the others are told to do the same. */
import type { Agent, TenantNotice } from '../../src/domain/agent-record.ts';
import type { AgentNews } from '../../src/domain/broadcast.ts';
import type { AgentId, TenantId } from '../../src/domain/ids.ts';
import type { Tier } from '../../src/domain/tiers.ts';
import type { Broadcast } from '../../src/ports/broadcast.ts';
import type { Directory } from '../../src/ports/sessions.ts';

interface EverywhereDeps {
  readonly broadcast: Broadcast;
  /** The halves of this node. */
  readonly here: {
    readonly push: Directory['push'];
    /** Brings a notice to its tenant's sockets. */
    readonly notify: (notice: TenantNotice) => void;
    readonly tierSet: (tenantId: TenantId, tier: Tier) => void;
    /** A version was stored here. */
    readonly changed: (agent: Agent) => void;
    /** Forgets what is known of an agent that is older than the news. */
    readonly outdated: (news: AgentNews) => void;
  };
}

/** The same on all nodes. Each is done here before it returns; elsewhere at most once, and nobody waits for it. */
export interface Everywhere {
  /** Returns the sessions of this node. */
  readonly push: Directory['push'];
  notify(notice: TenantNotice): void;
  tierSet(tenantId: TenantId, tier: Tier): void;
  changed(agent: Agent): void;
  invalidate(tenantId: TenantId, agentId: AgentId): void;
}

export function createEverywhere({ broadcast, here }: EverywhereDeps): Everywhere {
  broadcast.listen((item) => {
    switch (item.type) {
      case 'notice':
        // What listeners hear, Notices brings them (src/management/notices.ts).
        return item.audience === 'clients' ? here.notify(item.notice) : undefined;
      case 'push': {
        const { taskId, ...frame } = item.frame;
        return void here.push(
          item.tenantId,
          item.sessions,
          taskId === undefined ? frame : { ...frame, taskId },
        );
      }
      case 'agent':
        return here.outdated(item.news);
      case 'tier':
        return here.tierSet(item.tenantId, item.tier);
    }
  });
  return {
    push(tenantId, sessions, frame) {
      broadcast.tell({ type: 'push', tenantId, sessions: sessions && [...sessions], frame: { ...frame } });
      return here.push(tenantId, sessions, frame);
    },
    notify(notice) {
      here.notify(notice);
      broadcast.tell({ type: 'notice', notice, audience: 'clients' });
    },
    tierSet(tenantId, tier) {
      here.tierSet(tenantId, tier);
      broadcast.tell({ type: 'tier', tenantId, tier });
    },
    changed(agent) {
      here.changed(agent);
      const { tenant_id: tenantId, id: agentId, version, slug } = agent;
      broadcast.tell({ type: 'agent', news: { tenantId, agentId, version, slug } });
    },
    invalidate(tenantId, agentId) {
      here.outdated({ tenantId, agentId });
      broadcast.tell({ type: 'agent', news: { tenantId, agentId } });
    },
  };
}
