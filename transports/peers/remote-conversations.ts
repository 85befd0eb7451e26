/** Conversations of an external service: read from it where a session begins, and saved there with every turn. */
import { LRUCache } from 'lru-cache';
import { estimateTokens, isPartial, type Message } from '../../src/domain/conversation.ts';
import { derivedUuid } from '../../src/domain/derived-ids.ts';
import { RefusalError } from '../../src/domain/errors.ts';
import type { SessionId, TenantId } from '../../src/domain/ids.ts';
import { readHistory } from '../../src/domain/peer-replies.ts';
import { serviceQueue } from '../../src/domain/queues.ts';
import type { Tier, TierTable } from '../../src/domain/tiers.ts';
import type { Peers } from '../../src/ports/peers.ts';
import type { MessagePage, Outgoing, Store, Write } from '../../src/ports/store.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';
import type { ActionFormat } from '../../src/ports/transport.ts';
import { createConversationCache, joined } from './conversation-cache.ts';

/** Deleted conversations that are remembered as such. */
const MAX_DELETED = 10_000;

interface RemoteConversationsOptions {
  readonly store: Store;
  readonly peers: Peers;
  readonly tiers: TierTable;
  readonly tierOf: (tenantId: TenantId) => Promise<Tier>;
  /** Of a turn that names none. */
  readonly defaultTier: Tier;
  readonly format: ActionFormat;
  readonly clock: Clock;
  readonly log: Log;
}

export type TurnEnded = Extract<Write, { type: 'turn-ended' }>;

interface RemoteConversations {
  /** The store; the newest page of a session begins with the messages of the service. */
  readonly store: Store;
  /** The actions that tell the service of a turn's end: the same, with the same ids, each time it is asked. */
  readonly saved: (write: TurnEnded) => readonly Outgoing[];
}

/**
 * A store whose sessions are known to an external service too. The service is asked once in its tier's cache time; the
 * turns that end meanwhile are added. It has messages a little later than this store: those it lacks come behind its
 * own. Where it does not answer, the stored messages serve alone.
 */
export function createRemoteConversations(options: RemoteConversationsOptions): RemoteConversations {
  const { store } = options;
  const history = createHistory(options);
  return {
    store: {
      ...store,
      async session(tenantId, sessionId, page): Promise<MessagePage | null> {
        if (page.before !== undefined) return store.session(tenantId, sessionId, page);
        const [stored, remote] = await Promise.all([
          store.session(tenantId, sessionId, page),
          history.of(tenantId, sessionId),
        ]);
        if (!stored && remote.length === 0) return null;
        const messages = joined(remote, stored?.messages ?? []).slice(-page.limit);
        return { ...stored, messages, hasMore: stored?.hasMore ?? false };
      },
      async commit(write) {
        const outcome = await store.commit(write);
        if (outcome === 'stored') history.applied(write);
        return outcome;
      },
    },
    saved: (write) =>
      [write.asked, write.message].flatMap((message) =>
        message && message.content !== '' && !message.partial ? [saveAction(write, message, options)] : [],
      ),
  };
}

/** The messages of the service, cached. */
function createHistory({ peers, tiers, tierOf, clock, log }: RemoteConversationsOptions) {
  const cache = createConversationCache();
  const asking = new Map<string, Promise<readonly Message[]>>();
  /** When sessions were deleted here, in ms: the service is not told, and would bring them back. */
  const deleted = new LRUCache<string, number>({ max: MAX_DELETED });

  async function ask(tenantId: TenantId, sessionId: SessionId): Promise<readonly Message[]> {
    const key = keyOf(tenantId, sessionId);
    const tier = await tierOf(tenantId);
    const { conversation_cache_s: seconds, conversation_cache_messages: most } = tiers[tier];
    const data = { session_id: sessionId, limit: most };
    const reply = await peers
      .ask({ type: 'conversation.get_history', tenantId, tier, sessionId, data })
      .catch((error: unknown) => {
        if (error instanceof RefusalError && error.data.code === 'NOT_FOUND') return { messages: [] };
        throw error;
      });
    const answered = readHistory(reply, most, clock.now());
    if (!answered) throw new Error('The reply holds no list of messages.');
    const deletedMs = deleted.get(key) ?? Number.NEGATIVE_INFINITY;
    const messages = answered.filter(({ atMs }) => atMs > deletedMs);
    cache.set(key, messages, most, clock.now() + seconds * 1000);
    return messages;
  }

  return {
    /** The messages of a session; none where the service does not answer. One question serves all who ask meanwhile. */
    async of(tenantId: TenantId, sessionId: SessionId): Promise<readonly Message[]> {
      const key = keyOf(tenantId, sessionId);
      const known = cache.get(key, clock.now()) ?? asking.get(key);
      if (known) return known;
      const answer = ask(tenantId, sessionId)
        .catch((error: unknown): readonly Message[] => {
          const err = error instanceof RefusalError ? error.message : error;
          log.warn({ err, tenant_id: tenantId, session_id: sessionId }, 'the stored conversation serves');
          return [];
        })
        .finally(() => asking.delete(key));
      asking.set(key, answer);
      return answer;
    },
    /** Takes over a write that was stored here. */
    applied(write: Write): void {
      if (write.type === 'turn-ended') {
        const { turn, asked, message } = write;
        const messages = [asked, message].filter((one) => one !== undefined).filter((one) => !isPartial(one));
        cache.append(keyOf(turn.tenantId, turn.sessionId), messages);
      } else if (write.type === 'session-deleted') {
        const key = keyOf(write.tenantId, write.sessionId);
        cache.delete(key);
        deleted.set(key, clock.now());
      }
    },
  };
}

/** The action that saves one message at the service. Made twice, it is the same. */
function saveAction(
  { turn, tier: named }: TurnEnded,
  message: Message,
  { defaultTier, format }: RemoteConversationsOptions,
): Outgoing {
  const { tenantId, sessionId, agentId, taskId, info } = turn;
  const tier = named ?? defaultTier;
  const id = derivedUuid('save', tenantId, taskId, message.role);
  return {
    tenantId,
    id,
    answers: undefined,
    queue: serviceQueue('conversation', tier),
    format,
    action: {
      action_id: id,
      action_type: 'conversation.save_message',
      task_id: taskId,
      tenant_id: tenantId,
      tenant_tier: tier,
      session_id: sessionId,
      agent_id: agentId,
      data: {
        session_id: sessionId,
        role: message.role,
        content: message.content,
        agent_id: agentId,
        ...(info ? { model_name: info.model } : {}),
        tokens_estimate: estimateTokens(message.content),
        task_id: taskId,
      },
      metadata: {},
      timestamp: new Date(message.atMs).toISOString(),
    },
  };
}

/** No id may hold a slash. */
const keyOf = (tenantId: TenantId, sessionId: SessionId): string => `${tenantId}/${sessionId}`;
