/**
 * Our node with its conversations in plain Maps: the floor of what it costs to store turns that need not outlive the
 * process. It does what a chat turn and an opened session ask for, and nothing else; the rest is `sqlite::memory:`.
 */
import type { Message } from '../../src/domain/conversation.ts';
import type { TurnRecord } from '../../src/domain/turn.ts';
import { startNode } from '../../src/node.ts';
import type { Store } from '../../src/ports/store.ts';
import { parseSettings } from '../../src/settings.ts';
import { openStores } from '../../src/store/open.ts';
import { SILENT } from '../store/turns.ts';

function createMaps(): Store {
  const turns = new Map<string, TurnRecord>();
  const sessions = new Map<string, Message[]>();
  const used = new Map<string, number>();
  return {
    tenant: async (tenantId, day) => {
      const count = used.get(`${tenantId} ${day}`);
      return count === undefined ? null : { tenantId, tier: undefined, day, used: count };
    },
    session: async (tenantId, sessionId, { limit }) => {
      const messages = sessions.get(`${tenantId} ${sessionId}`);
      return messages ? { messages: messages.slice(-limit), hasMore: messages.length > limit } : null;
    },
    turn: async (tenantId, taskId) => turns.get(`${tenantId} ${taskId}`) ?? null,
    async commit(write) {
      if (write.type !== 'turn-accepted' && write.type !== 'turn-ended') return 'stored';
      const { turn, message } = write;
      const { tenantId, taskId, sessionId } = turn;
      const key = `${tenantId} ${taskId}`;
      if (write.type === 'turn-accepted') {
        if (turns.has(key)) return 'duplicate';
        const day = `${tenantId} ${write.day}`;
        used.set(day, (used.get(day) ?? 0) + 1);
      }
      turns.set(key, turn);
      const messages = sessions.get(`${tenantId} ${sessionId}`) ?? [];
      if (message) messages.push(message);
      sessions.set(`${tenantId} ${sessionId}`, messages);
      return 'stored';
    },
    answered: async () => null,
    unsent: async () => [],
    ping: async () => {},
    close: async () => {},
  };
}

const parsed = parseSettings(process.env);
if (!parsed.ok) throw new Error(parsed.problems.join('\n'));

const stores = await openStores({ url: 'sqlite::memory:', log: SILENT });
const node = await startNode(parsed.settings, { stores: { ...stores, conversations: createMaps() } });
process.once('SIGTERM', () => {
  node.drain().finally(() => process.exit(0));
});
process.once('disconnect', () => process.exit(0));
