/** The Lua scripts, one a file beside this one, read at start and called by their digest. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Redis } from 'ioredis';

type Argument = string | number | Buffer;

/** Runs on the given connection; bulk replies come as Buffers. Keys and arguments: see the head of the file. */
type Script = (redis: Redis, keys: readonly string[], args: readonly Argument[]) => Promise<unknown>;

function script(name: string): Script {
  const lua = readFileSync(new URL(`./lua/${name}.lua`, import.meta.url), 'utf8');
  const digest = createHash('sha1').update(lua).digest('hex');
  return async (redis, keys, args) => {
    const rest: Argument[] = [keys.length, ...keys, ...args];
    try {
      return await redis.callBuffer('EVALSHA', digest, ...rest);
    } catch (error) {
      // A server that was restarted, or failed over, does not know it yet.
      if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error;
      return await redis.callBuffer('EVAL', lua, ...rest);
    }
  };
}

export const takeScript = script('take');
export const recoverScript = script('recover');
export const failScript = script('fail');
export const requeueScript = script('requeue');
export const deadLetterScript = script('dead-letter');
export const reclaimScript = script('reclaim');
export const removeDeadLetterScript = script('remove-dead-letter');

/** The elements of an array reply; none where it is something else. */
export const itemsOf = (reply: unknown): readonly unknown[] => (Array.isArray(reply) ? reply : []);

/** All that hold work, or may: one entry for each running consumer of each node. */
export const HOLDERS = 'nooble:holders';

/** Queues that have a dead list. */
export const DEAD_QUEUES = 'nooble:dead-queues';

/** A hash with the `body` that is too large to stand in its dead letter, by that one's id; dead-letter.lua names it, too. */
export const deadBodyKey = (id: string): string => `nooble:dead-body:${id}`;

/** There while its holder lives. */
export const leaseKey = (holder: string): string => `nooble:lease:${holder}`;

/** Written by a node that wants to know whether it may write. */
export const readyKey = (start: string): string => `nooble:ready:${start}`;

/** What a holder has taken: delivery id → queue, newline, body; and `hot:<list>` → queue. */
export const takenKey = (holder: string): string => `nooble:taken:${holder}`;

/** Where a holder's BLMOVE puts what it moves; a new list after every broken connection. */
export const intakeKey = (holder: string, generation: number): string =>
  `nooble:intake:${holder}:${generation}`;
