/** Conversations as an external service told them, for as long as their tier says: bounded, the unused ones go first. */
import type { Message } from '../../src/domain/conversation.ts';

/** Conversations, and UTF-16 units of all their messages together. */
const MAX_CONVERSATIONS = 10_000;
const MAX_UNITS = 64 * 1024 * 1024;

interface Cached {
  readonly messages: readonly Message[];
  readonly untilMs: number;
  readonly most: number;
  readonly units: number;
}

interface ConversationCache {
  get(key: string, nowMs: number): readonly Message[] | undefined;
  /** Keeps the newest `most` of them until then. */
  set(key: string, messages: readonly Message[], most: number, untilMs: number): void;
  /** Adds to what is there; where nothing is, nothing is begun. */
  append(key: string, messages: readonly Message[]): void;
  delete(key: string): void;
  size(): number;
}

export function createConversationCache(
  limits = { conversations: MAX_CONVERSATIONS, units: MAX_UNITS },
): ConversationCache {
  /** The one that was used last stands at the end. */
  const cached = new Map<string, Cached>();
  let units = 0;

  function drop(key: string): void {
    units -= cached.get(key)?.units ?? 0;
    cached.delete(key);
  }

  function put(key: string, messages: readonly Message[], most: number, untilMs: number): void {
    drop(key);
    const kept = messages.slice(-most);
    const weight = kept.reduce((sum, { content }) => sum + content.length, 0);
    cached.set(key, { messages: kept, untilMs, most, units: weight });
    units += weight;
    for (const oldest of cached.keys()) {
      if (cached.size <= limits.conversations && units <= limits.units) return;
      drop(oldest);
    }
  }

  return {
    get(key, nowMs) {
      const found = cached.get(key);
      if (!found) return undefined;
      if (found.untilMs <= nowMs) {
        drop(key);
        return undefined;
      }
      cached.delete(key);
      cached.set(key, found);
      return found.messages;
    },
    set: put,
    append(key, messages) {
      const found = cached.get(key);
      if (!found) return;
      const known = new Set(found.messages.map(identity));
      const added = messages.filter((message) => !known.has(identity(message)));
      put(key, [...found.messages, ...added], found.most, found.untilMs);
    },
    delete: drop,
    size: () => cached.size,
  };
}

/** A turn has one message of each role. */
const identity = ({ taskId, role }: Message): string => `${taskId} ${role}`;

/**
 * What a service told, and behind it what is stored here and has not reached the service: whatever follows the last
 * stored message that the service knows, by its task, or by its words where the service keeps no tasks. Where it knows
 * none of them, what is newer than all it told.
 */
export function joined(told: readonly Message[], stored: readonly Message[]): readonly Message[] {
  if (told.length === 0) return stored;
  const byTask = lastCommon(told, stored, identity);
  const common = byTask >= 0 ? byTask : lastCommon(told, stored, words);
  if (common >= 0) return [...told, ...stored.slice(common + 1)];
  const newest = told.at(-1)?.atMs ?? 0;
  return [...told, ...stored.filter(({ atMs }) => atMs > newest)];
}

function lastCommon(
  told: readonly Message[],
  stored: readonly Message[],
  key: (message: Message) => string,
): number {
  const known = new Set(told.map(key));
  return stored.findLastIndex((message) => known.has(key(message)));
}

const words = ({ role, content }: Message): string => `${role}\n${content}`;
