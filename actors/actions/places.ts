/**
 * Which actions of the queues may be in hand on this node: what a tenant can not run yet is set aside, and holds up
 * nobody else's.
 *
 * A place is one of the executions that the node runs at once, and a session has at most one: its further actions stand
 * behind it in the session's own queue. Tiers share places by weight, the tenants of a tier alike.
 */
import {
  enrolled,
  nextSubscription,
  noTurns,
  served,
  type Turns,
  type WaitingQueue,
} from '../../src/domain/fair-queue.ts';
import type { SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import { type QueueName, queueNameSchema, type Subscription } from '../../src/domain/queues.ts';
import { type Tier, type TierTable, tierSchema } from '../../src/domain/tiers.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';
import { type ActionDelivery, type Place, SetAside } from '../../src/ports/transport.ts';

/** Actions in hand behind others of their sessions. */
export const MAX_BEHIND = 1_000;
/** Bytes of the bodies in hand, of one tenant and in all; parsed, they are several times that. */
const MAX_TENANT_BYTES = 24 * 1024 * 1024;
const MAX_BYTES = 96 * 1024 * 1024;
/** A tenant with waiting actions is asked for its limit that often. */
const LIMIT_MS = 5_000;
const MAX_NAME = 512;

/** Who wants a place. */
interface Wanting {
  readonly tenantId: TenantId;
  readonly tier: Tier | undefined;
  /** What has one place: a session, or a batch. */
  readonly sessionId: SessionId | TaskId;
  /** Undefined of what can not be cancelled by it. */
  readonly taskId: TaskId | undefined;
}

/** Performs an action; `started` is to be called when its run is known to its session, or refused. */
type Work = (started: () => void) => Promise<void>;

export interface Places {
  /** Performs at once what has room, or was granted a place; throws SetAside for the rest. */
  within(delivery: ActionDelivery, wanting: Wanting, work: Work): Promise<void>;
  /** Lets a waiting run go on out of its turn, so that it can be cancelled. Resolves when it is known to its session. */
  hasten(tenantId: TenantId, taskId: TaskId): Promise<void>;
}

interface PlaceDeps {
  readonly places: number;
  readonly subscriptions: readonly Subscription[];
  readonly tiers: TierTable;
  readonly atOnce: Executions['atOnce'];
  readonly clock: Clock;
  readonly log: Log;
}

interface TenantPlaces {
  /** Actions in hand, by session; each has one place. */
  readonly inHand: Map<string, number>;
  /** Actions that wait, by session. */
  readonly waiting: Map<string, number>;
  behind: number;
  bytes: number;
  limit: number;
  askedAtMs: number;
}

interface Entry extends Wanting {
  readonly bytes: number;
  readonly tenant: TenantPlaces;
  readonly line: QueueName;
  readonly source: Subscription;
  state: 'waiting' | 'in hand' | 'left';
  readonly place: Place;
  readonly grant: () => void;
  readonly started: Promise<void>;
  readonly start: () => void;
}

/** The actions of one tenant that came by one queue, oldest first. */
interface Line {
  readonly subscription: Subscription;
  readonly entries: Set<Entry>;
}

export function createPlaces({ places, subscriptions, tiers, atOnce, clock, log }: PlaceDeps): Places {
  const sources = new Map(subscriptions.map((each) => [each.queue, each]));
  const tenants = new Map<TenantId, TenantPlaces>();
  const lines = new Map<QueueName, Line>();
  /** Those that their sessions do not know yet. */
  const unstarted = new Map<string, Entry>();
  const granted = new WeakMap<Place, Entry>();
  let occupied = 0;
  let behind = 0;
  let bytes = 0;
  let turns: Turns = noTurns;
  /** Places that tiers have. */
  const ofTier = new Map<string, number>();

  function mayEnter({ tenant, sessionId, bytes: more }: Entry): boolean {
    if (bytes > 0 && bytes + more > MAX_BYTES) return false;
    if (tenant.bytes > 0 && tenant.bytes + more > MAX_TENANT_BYTES) return false;
    // As many as are left for others: the next tenant always finds some.
    if (tenant.inHand.has(sessionId)) return tenant.behind < MAX_BEHIND - behind;
    return tenant.inHand.size < tenant.limit && occupied < places;
  }

  function enter(entry: Entry): void {
    const { tenant, sessionId } = entry;
    const others = tenant.inHand.get(sessionId) ?? 0;
    tenant.inHand.set(sessionId, others + 1);
    count(entry, others > 0, 1);
    entry.state = 'in hand';
  }

  function count({ tenant, bytes: size, source }: Entry, isBehind: boolean, sign: 1 | -1): void {
    if (isBehind) {
      tenant.behind += sign;
      behind += sign;
    } else {
      occupied += sign;
      ofTier.set(source.group, (ofTier.get(source.group) ?? 0) + sign);
    }
    tenant.bytes += sign * size;
    bytes += sign * size;
  }

  function leave(entry: Entry): void {
    const { tenant, tenantId, sessionId, state } = entry;
    if (state === 'left') return;
    if (state === 'waiting') outOfLine(entry);
    else {
      const others = (tenant.inHand.get(sessionId) ?? 1) - 1;
      if (others === 0) tenant.inHand.delete(sessionId);
      else tenant.inHand.set(sessionId, others);
      count(entry, others > 0, -1);
    }
    entry.state = 'left';
    start(entry);
    if (tenant.inHand.size + tenant.waiting.size === 0) tenants.delete(tenantId);
    grantAll();
  }

  function start(entry: Entry): void {
    const { tenantId, taskId } = entry;
    if (taskId && unstarted.get(taskKey(tenantId, taskId)) === entry)
      unstarted.delete(taskKey(tenantId, taskId));
    entry.start();
  }

  function intoLine(entry: Entry): void {
    const line = lines.get(entry.line) ?? {
      subscription: { ...entry.source, queue: entry.line },
      entries: new Set<Entry>(),
    };
    lines.set(entry.line, line);
    line.entries.add(entry);
    const { waiting } = entry.tenant;
    waiting.set(entry.sessionId, (waiting.get(entry.sessionId) ?? 0) + 1);
  }

  function outOfLine(entry: Entry): void {
    const { sessionId, tenant } = entry;
    const { waiting } = tenant;
    const line = lines.get(entry.line);
    line?.entries.delete(entry);
    if (line?.entries.size === 0) lines.delete(entry.line);
    if (lines.size === 0) turns = noTurns;
    const others = (waiting.get(sessionId) ?? 1) - 1;
    if (others === 0) waiting.delete(sessionId);
    else waiting.set(sessionId, others);
  }

  function grant(entry: Entry): void {
    outOfLine(entry);
    enter(entry);
    entry.grant();
  }

  /** Grants what can be granted now, by whose turn it is. */
  function grantAll(): void {
    for (;;) {
      const ready: WaitingQueue[] = [];
      for (const { subscription, entries } of lines.values()) {
        const [first] = entries;
        if (first && mayEnter(first)) ready.push({ subscription, length: entries.size });
      }
      if (ready.length === 0) return;
      turns = turns === noTurns ? begun(ready) : enrolled(turns, ready);
      const next = nextSubscription(turns);
      const [first] = (next && lines.get(next.queue)?.entries) ?? [];
      if (!next || !first) return;
      turns = served(turns, next);
      grant(first);
    }
  }

  /** The first turns since nobody waited: a tier that has places has had that many of them, up to its weight. */
  function begun(ready: readonly WaitingQueue[]): Turns {
    let first = enrolled(noTurns, ready);
    const tiersThere = new Map(ready.map(({ subscription }) => [subscription.group, subscription]));
    for (const [group, subscription] of tiersThere)
      for (let had = Math.min(ofTier.get(group) ?? 0, subscription.weight); had > 0; had -= 1)
        first = served(first, subscription);
    return first;
  }

  /** The limit of the tenant's own tier, where the queue or the action has named another. */
  function askLimit({ tenant, tenantId, tier }: Entry): void {
    const nowMs = clock.now();
    if (nowMs - tenant.askedAtMs < LIMIT_MS) return;
    tenant.askedAtMs = nowMs;
    atOnce(tenantId, tier).then(
      (limit) => {
        tenant.limit = limit;
        grantAll();
      },
      (error: unknown) =>
        log.debug({ err: error, tenant_id: tenantId }, "a tenant's limit could not be read"),
    );
  }

  function tenantOf(tenantId: TenantId, tier: Tier): TenantPlaces {
    const known = tenants.get(tenantId);
    if (known) return known;
    const limit = tiers[tier].executions;
    const askedAtMs = Number.NEGATIVE_INFINITY;
    const made = { inHand: new Map(), waiting: new Map(), behind: 0, bytes: 0, limit, askedAtMs };
    tenants.set(tenantId, made);
    return made;
  }

  /** The entry of a delivery that may go on now. Throws SetAside. */
  function entryOf(delivery: ActionDelivery, wanting: Wanting): Entry {
    const before = delivery.place && granted.get(delivery.place);
    if (before) return before;
    const source = sources.get(delivery.queue) ?? NO_SOURCE;
    const tier = wanting.tier ?? tierSchema.safeParse(source.group).data ?? 'free';
    const tenant = tenantOf(wanting.tenantId, tier);
    // Its end tells one tenant's line from another's.
    const line = queueNameSchema.parse(`${delivery.queue}:${wanting.tenantId}`.slice(-MAX_NAME));
    const [come, started] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const place: Place = { granted: come.promise, leave: () => leave(entry) };
    const entry: Entry = {
      ...wanting,
      ...{ bytes: delivery.bytes ?? 0, tenant, line, source, state: 'waiting', place, grant: come.resolve },
      ...{ started: started.promise, start: started.resolve },
    };
    granted.set(place, entry);
    if (entry.taskId) unstarted.set(taskKey(entry.tenantId, entry.taskId), entry);
    const isFirst =
      !lines.has(line) || (tenant.inHand.has(entry.sessionId) && !tenant.waiting.has(entry.sessionId));
    if (isFirst && mayEnter(entry)) {
      enter(entry);
      return entry;
    }
    intoLine(entry);
    askLimit(entry);
    throw new SetAside(place);
  }

  return {
    async within(delivery, wanting, work) {
      const entry = entryOf(delivery, wanting);
      try {
        await work(() => start(entry));
      } finally {
        leave(entry);
      }
    },
    async hasten(tenantId, taskId) {
      const entry = unstarted.get(taskKey(tenantId, taskId));
      if (entry?.state === 'waiting') grant(entry);
      await entry?.started;
    },
  };
}

const taskKey = (tenantId: TenantId, taskId: TaskId): string => `${tenantId} ${taskId}`;

/** Of a queue that has come since; there is none. */
const NO_SOURCE: Subscription = {
  queue: queueNameSchema.parse('-'),
  group: '-',
  weight: 1,
  share: 1,
};
