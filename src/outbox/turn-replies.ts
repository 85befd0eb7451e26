/** The replies that ends of turns bring with them: made in the tick of the write, and what became of them. */
import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import { replyTo } from '../domain/action-replies.ts';
import { domainActionSchema } from '../domain/domain-action.ts';
import { type TenantId, tenantIdSchema } from '../domain/ids.ts';
import { problemText } from '../domain/problems.ts';
import { queueNameSchema } from '../domain/queues.ts';
import type { ReplySpec } from '../domain/reply-spec.ts';
import type { TurnRecord } from '../domain/turn.ts';
import type { TurnReply } from '../ports/outbox.ts';
import type { Outgoing } from '../ports/store.ts';
import type { Log } from '../ports/telemetry.ts';

/** Replies whose state is remembered: who asks does so right after the end. */
const MAX_REMEMBERED = 20_000;

/** What one end brings with it. */
interface Due {
  readonly outgoing: readonly Outgoing[];
  /** The store has answered. */
  settle(stored: boolean): void;
}

/** Makes the message of a reply. Throws where it can not be made. */
export type ReplyOf = (spec: ReplySpec, turn: TurnRecord) => Outgoing;

interface TurnReplies {
  due(turn: TurnRecord, specs: readonly ReplySpec[]): Due;
  brought(tenantId: TenantId, id: string): TurnReply | undefined;
  forgo(tenantId: TenantId, id: string): void;
}

/** A reply that can not be made, or not be read again, is logged and lost: the turn's end must not be. */
export function createTurnReplies(log: Log, replyOf: ReplyOf): TurnReplies {
  const latest = new LRUCache<string, TurnReply>({ max: MAX_REMEMBERED });
  /** Few: those of the runs that a node gives up as it goes. */
  const forgone = new Set<string>();

  return {
    due(turn, specs) {
      const made = specs.flatMap((spec) => {
        if (forgone.has(keyOf(turn.tenantId, spec.id))) return [];
        const outgoing = madeBy(() => [replyOf(spec, turn)], turn, log);
        const reply: { state: TurnReply['state'] } = { state: outgoing ? 'storing' : 'lost' };
        latest.set(keyOf(turn.tenantId, spec.id), reply);
        return outgoing ? [{ reply, outgoing }] : [];
      });
      return {
        outgoing: made.flatMap(({ outgoing }) => outgoing),
        settle(stored) {
          for (const { reply } of made) reply.state = stored ? 'stored' : 'lost';
        },
      };
    },
    brought: (tenantId, id) => latest.get(keyOf(tenantId, id)),
    forgo: (tenantId, id) => void forgone.add(keyOf(tenantId, id)),
  };
}

const keyOf = (tenantId: TenantId, id: string): string => `${tenantId} ${id}`;

/** The message that an ended turn becomes. */
export const turnOutgoing =
  (now: () => number): ReplyOf =>
  (spec, turn) => {
    const { id, answers, queue, format } = spec;
    const action = queue === undefined ? undefined : replyTo(spec, turn, now());
    return { tenantId: turn.tenantId, id, answers, queue, format, action };
  };

/** Null where it was not to be had: the end of the turn must not be lost with it. */
export function madeBy(
  make: () => readonly Outgoing[],
  { tenantId, taskId }: TurnRecord,
  log: Log,
): readonly Outgoing[] | null {
  try {
    return [...make()].map(checked);
  } catch (error) {
    log.error({ err: error, tenant_id: tenantId, task_id: taskId }, 'what a turn had to send was not made');
    return null;
  }
}

const outgoingSchema = z
  .object({
    tenantId: tenantIdSchema,
    id: z.string().min(1),
    answers: z.string().optional(),
    queue: queueNameSchema.optional(),
    format: z.enum(['json', 'msgpack']),
    action: domainActionSchema.optional(),
  })
  .refine(({ queue, action }) => queue === undefined || action !== undefined, 'there is nothing to send')
  .refine(({ tenantId, action }) => (action?.tenant_id ?? tenantId) === tenantId, 'it is of another tenant');

/** Throws where the store could not be read any more with it: one bad message would stop all that is behind it. */
export function checked(outgoing: Outgoing): Outgoing {
  const parsed = outgoingSchema.safeParse(outgoing);
  if (parsed.success) return outgoing;
  throw new TypeError(`The message can not be stored: ${problemText(parsed.error)}.`);
}
