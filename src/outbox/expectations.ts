/** What is to be stored with the ends of turns that have not ended yet. */
import { z } from 'zod';
import { domainActionSchema } from '../domain/domain-action.ts';
import { type TaskId, type TenantId, tenantIdSchema } from '../domain/ids.ts';
import { problemText } from '../domain/problems.ts';
import { queueNameSchema } from '../domain/queues.ts';
import type { TurnRecord } from '../domain/turn.ts';
import type { Expectation } from '../ports/outbox.ts';
import type { Outgoing } from '../ports/store.ts';
import type { Log } from '../ports/telemetry.ts';

type Make = (turn: TurnRecord) => readonly Outgoing[];

/** What one end brings with it. */
interface Due {
  readonly outgoing: readonly Outgoing[];
  /** The store has answered: nothing is expected of that turn any more. */
  settle(stored: boolean): void;
}

interface Expectations {
  expect(tenantId: TenantId, taskId: TaskId, make: Make): Expectation;
  due(turn: TurnRecord): Due;
}

interface Expected {
  readonly make: Make;
  stored: boolean;
}

/** A `make` that throws, or makes what could not be read again, is logged and brings nothing. */
export function createExpectations(log: Log): Expectations {
  const turns = new Map<string, Set<Expected>>();

  return {
    expect(tenantId, taskId, make) {
      const key = keyOf(tenantId, taskId);
      const expected: Expected = { make, stored: false };
      const ofTurn = turns.get(key) ?? new Set<Expected>();
      turns.set(key, ofTurn.add(expected));
      return {
        stored: () => expected.stored,
        release() {
          ofTurn.delete(expected);
          if (ofTurn.size === 0 && turns.get(key) === ofTurn) turns.delete(key);
        },
      };
    },
    due(turn) {
      const key = keyOf(turn.tenantId, turn.taskId);
      const ofTurn = turns.get(key);
      if (!ofTurn) return NOTHING;
      const made = [...ofTurn].map((expected) => ({
        expected,
        outgoing: madeBy(() => expected.make(turn), turn, log),
      }));
      return {
        outgoing: made.flatMap(({ outgoing }) => outgoing ?? []),
        settle(stored) {
          if (turns.get(key) === ofTurn) turns.delete(key);
          for (const { expected, outgoing } of made) if (stored && outgoing) expected.stored = true;
        },
      };
    },
  };
}

const NOTHING: Due = { outgoing: [], settle: () => {} };

const keyOf = (tenantId: TenantId, taskId: TaskId): string => `${tenantId} ${taskId}`;

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
