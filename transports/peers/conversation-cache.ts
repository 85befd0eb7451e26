/** Conversations as an external service answered them, for as long as their tier says: bounded, unused ones go first. */
import { LRUCache } from 'lru-cache';
import type { Message } from '../../src/domain/conversation.ts';

/** Conversations, and UTF-16 units of all their messages together. */
const MAX_CONVERSATIONS = 10_000;
const MAX_UNITS = 64 * 1024 * 1024;

interface Cached {
  readonly messages: readonly Message[];
  readonly untilMs: number;
  readonly most: number;
}

interface ConversationCache {
  get(key: string, nowMs: number): readonly Message[] | undefined;
  /** Holds the newest `most` of them until then. */
  set(key: string, messages: readonly Message[], most: number, untilMs: number): void;
  /** Adds to what is there; where nothing is, nothing is begun. */
  append(key: string, messages: readonly Message[]): void;
  delete(key: string): void;
  size(): number;
}

export function createConversationCache(
  limits = { conversations: MAX_CONVERSATIONS, units: MAX_UNITS },
): ConversationCache {
  const cache = new LRUCache<string, Cached>({
    max: limits.conversations,
    maxSize: limits.units,
    sizeCalculation: ({ messages }) => Math.max(1, unitsOf(messages)),
  });

  function set(key: string, messages: readonly Message[], most: number, untilMs: number): void {
    cache.set(key, { messages: messages.slice(-most), untilMs, most });
  }

  return {
    get(key, nowMs) {
      const found = cache.get(key);
      if (found && found.untilMs > nowMs) return found.messages;
      cache.delete(key);
      return undefined;
    },
    set,
    append(key, messages) {
      const found = cache.get(key);
      if (!found) return;
      const known = new Set(found.messages.map(identity));
      const added = messages.filter((message) => !known.has(identity(message)));
      set(key, [...found.messages, ...added], found.most, found.untilMs);
    },
    delete: (key) => void cache.delete(key),
    size: () => cache.size,
  };
}

const unitsOf = (messages: readonly Message[]): number =>
  messages.reduce((sum, { content }) => sum + content.length, 0);

/** A turn has one message of each role. */
const identity = ({ taskId, role }: Message): string => `${taskId} ${role}`;

/**
 * The messages of a service, then the stored ones that have not reached it: those behind the last stored message that
 * the service has too, by its task, or by its words where the service has no tasks. Where it has none of them, those
 * that are newer than all of the service's.
 */
export function joined(remote: readonly Message[], stored: readonly Message[]): readonly Message[] {
  if (remote.length === 0) return stored;
  const byTask = lastCommon(remote, stored, identity);
  const common = byTask >= 0 ? byTask : lastCommon(remote, stored, words);
  if (common >= 0) return [...remote, ...stored.slice(common + 1)];
  const newest = remote.at(-1)?.atMs ?? 0;
  return [...remote, ...stored.filter(({ atMs }) => atMs > newest)];
}

function lastCommon(
  remote: readonly Message[],
  stored: readonly Message[],
  key: (message: Message) => string,
): number {
  const known = new Set(remote.map(key));
  return stored.findLastIndex((message) => known.has(key(message)));
}

const words = ({ role, content }: Message): string => `${role}\n${content}`;
