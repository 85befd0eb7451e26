/** Conversations that an external service keeps: read from it where a session begins, and told of every turn. */
import { estimateTokens, type Message } from '../../src/domain/conversation.ts';
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

/** Deleted conversations that are remembered as such: the service is not told, and would bring them back. */
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
  /** The store; the newest page of a session begins with what the service knows of it. */
  readonly store: Store;
  /** What the service is to be told of a turn that ends: the same, with the same ids, each time it is asked. */
  readonly saved: (write: TurnEnded) => readonly Outgoing[];
}

/**
 * A store whose sessions are known to an external service too. The service is asked once in its tier's cache time; the
 * turns that end meanwhile are added. It has what is stored here a little later: what it lacks is put behind what it
 * told. Where it does not answer, what is stored here serves.
 */
export function createRemoteConversations(options: RemoteConversationsOptions): RemoteConversations {
  const { store, peers, tiers, tierOf, clock, log } = options;
  const cache = createConversationCache();
  const asking = new Map<string, Promise<readonly Message[]>>();
  /** When, in ms; the one that was deleted first is forgotten first. */
  const deleted = new Map<string, number>();

  /** What the service knows of a session; none where it does not answer. */
  async function told(tenantId: TenantId, sessionId: SessionId): Promise<readonly Message[]> {
    const key = keyOf(tenantId, sessionId);
    const known = cache.get(key, clock.now());
    if (known) return known;
    const running = asking.get(key);
    if (running) return running;
    const answer = ask(tenantId, sessionId)
      .catch((error: unknown): readonly Message[] => {
        const err = error instanceof RefusalError ? error.message : error;
        log.warn({ err, tenant_id: tenantId, session_id: sessionId }, 'the stored conversation serves');
        return [];
      })
      .finally(() => asking.delete(key));
    asking.set(key, answer);
    return answer;
  }

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
    const heard = readHistory(reply, most, clock.now());
    if (!heard) throw new Error('The reply holds no list of messages.');
    const goneMs = deleted.get(key);
    const messages = goneMs === undefined ? heard : heard.filter(({ atMs }) => atMs > goneMs);
    cache.set(key, messages, most, clock.now() + seconds * 1000);
    return messages;
  }

  function applied(write: Write): void {
    if (write.type === 'turn-ended') {
      const { turn, asked, message } = write;
      const messages = [asked, message].filter((one) => one !== undefined);
      cache.append(keyOf(turn.tenantId, turn.sessionId), messages);
    } else if (write.type === 'session-deleted') {
      const key = keyOf(write.tenantId, write.sessionId);
      cache.delete(key);
      deleted.delete(key);
      deleted.set(key, clock.now());
      const [oldest] = deleted.size > MAX_DELETED ? deleted.keys() : [];
      if (oldest !== undefined) deleted.delete(oldest);
    }
  }

  return {
    store: {
      tenant: (tenantId, day) => store.tenant(tenantId, day),
      async session(tenantId, sessionId, page): Promise<MessagePage | null> {
        if (page.before !== undefined) return store.session(tenantId, sessionId, page);
        const [stored, history] = await Promise.all([
          store.session(tenantId, sessionId, page),
          told(tenantId, sessionId),
        ]);
        if (!stored && history.length === 0) return null;
        const messages = joined(history, stored?.messages ?? []).slice(-page.limit);
        return { ...stored, messages, hasMore: stored?.hasMore ?? false };
      },
      turn: (tenantId, taskId) => store.turn(tenantId, taskId),
      async commit(write) {
        const outcome = await store.commit(write);
        if (outcome === 'stored') applied(write);
        return outcome;
      },
      answered: (tenantId, actionId) => store.answered(tenantId, actionId),
      unsent: (afterSeq, limit) => store.unsent(afterSeq, limit),
      ping: () => store.ping(),
      close: () => store.close(),
    },
    saved: (write) =>
      [write.asked, write.message].flatMap((message) =>
        message && message.content !== '' ? [saying(write, message, options)] : [],
      ),
  };
}

/** One message on its way to the service. Whatever makes it twice makes it alike. */
function saying(
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
