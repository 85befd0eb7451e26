/**
 * Which actions of the queues may be in hand on this node: what a tenant can not run yet is set aside, and holds up
 * nobody else's.
 *
 * A place is one of the executions that the node runs at once, and a session has at most one: its further actions stand
 * behind it in the session's own queue. Tiers share places by weight, the tenants of a tier alike.
 */
import { FairOrder } from '../../src/domain/fair-order.ts';
import { DEFAULT_AGENT_ID, type SessionId, type TaskId, type TenantId } from '../../src/domain/ids.ts';
import { type QueueName, queueNameSchema, type Subscription } from '../../src/domain/queues.ts';
import { type Tier, type TierTable, tierSchema } from '../../src/domain/tiers.ts';
import type { TurnRecord, TurnRequest } from '../../src/domain/turn.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type { Directory } from '../../src/ports/sessions.ts';
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
  /** Undefined of a batch: that can not be cancelled, and has no status as a turn. */
  readonly turn: Pick<TurnRequest, 'taskId' | 'sessionId' | 'agentId'> | undefined;
}

/** Performs an action; `started` is to be called when its run is known to its session, or refused. */
type Work = (started: () => void) => Promise<void>;

export interface Places {
  /** Executions that the node runs at once. */
  readonly size: number;
  /** Performs at once what has room, or was granted a place; throws SetAside for the rest. */
  within(delivery: ActionDelivery, wanting: Wanting, work: Work): Promise<void>;
  /** Lets a waiting run go on out of its turn, so that it can be cancelled. Resolves when it is known to its session. */
  hasten(tenantId: TenantId, taskId: TaskId): Promise<void>;
  /** The turn of a run that its session does not know yet. */
  queued(tenantId: TenantId, taskId: TaskId): TurnRecord | undefined;
}

interface PlaceDeps {
  /** Executions that the node runs at once. */
  readonly size: number;
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
  /** Its lines with entries. */
  readonly lines: Set<Line>;
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
  readonly cameAtMs: number;
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

export function createPlaces({ size, subscriptions, tiers, atOnce, clock, log }: PlaceDeps): Places {
  const sources = new Map(subscriptions.map((each) => [each.queue, each]));
  const tenants = new Map<TenantId, TenantPlaces>();
  const lines = new Map<QueueName, Line>();
  /** Lines whose first has room within its tenant: for a place, and behind another of its session. */
  const forPlaces = new FairOrder<Line>();
  const forBehind = new FairOrder<Line>();
  /** Those that their sessions do not know yet. */
  const unstarted = new Map<string, Entry>();
  const granted = new WeakMap<Place, Entry>();
  let occupied = 0;
  let behind = 0;
  let bytes = 0;
  /** Nobody had a turn since somebody waits. */
  let isFresh = true;
  /** Places that tiers have. */
  const ofTier = new Map<string, number>();

  const isBehind = ({ tenant, sessionId }: Entry): boolean => tenant.inHand.has(sessionId);

  /** What its own tenant leaves it. */
  function hasRoom(entry: Entry): boolean {
    const { tenant } = entry;
    if (tenant.bytes > 0 && tenant.bytes + entry.bytes > MAX_TENANT_BYTES) return false;
    return isBehind(entry) || tenant.inHand.size < tenant.limit;
  }

  /** What all leave it. */
  function isRoom(entry: Entry): boolean {
    if (bytes > 0 && bytes + entry.bytes > MAX_BYTES) return false;
    // As many as are left for others: the next tenant always finds some.
    return isBehind(entry) ? entry.tenant.behind < MAX_BEHIND - behind : occupied < size;
  }

  /** What changed for a tenant may let its lines have their turns, or not any more. */
  function look({ lines: own }: TenantPlaces): void {
    for (const line of own) {
      const [first] = line.entries;
      const order = first && hasRoom(first) ? (isBehind(first) ? forBehind : forPlaces) : undefined;
      for (const other of [forPlaces, forBehind]) if (other !== order) other.delete(line);
      order?.add(line, line.subscription, order === forPlaces ? hadBefore(line) : 0);
    }
  }

  /** The first turns since nobody waited: a tier that has places has had that many of them, up to its weight. */
  const hadBefore = ({ subscription: { group, weight } }: Line): number =>
    isFresh ? Math.min(ofTier.get(group) ?? 0, weight) : 0;

  function enter(entry: Entry): void {
    const { tenant, sessionId } = entry;
    const others = tenant.inHand.get(sessionId) ?? 0;
    tenant.inHand.set(sessionId, others + 1);
    count(entry, others > 0, 1);
    entry.state = 'in hand';
    look(tenant);
  }

  function count({ tenant, bytes: size, source }: Entry, hasOthers: boolean, sign: 1 | -1): void {
    if (hasOthers) {
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
    look(tenant);
    grantAll();
  }

  function start(entry: Entry): void {
    const { tenantId, turn } = entry;
    const key = turn && taskKey(tenantId, turn.taskId);
    if (key !== undefined && unstarted.get(key) === entry) unstarted.delete(key);
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
    entry.tenant.lines.add(line);
    look(entry.tenant);
    waiting.set(entry.sessionId, (waiting.get(entry.sessionId) ?? 0) + 1);
  }

  function outOfLine(entry: Entry): void {
    const { sessionId, tenant } = entry;
    const { waiting } = tenant;
    const line = lines.get(entry.line);
    line?.entries.delete(entry);
    if (line?.entries.size === 0) {
      lines.delete(entry.line);
      tenant.lines.delete(line);
      for (const order of [forPlaces, forBehind]) order.delete(line);
    }
    if (lines.size === 0) isFresh = true;
    const others = (waiting.get(sessionId) ?? 1) - 1;
    if (others === 0) waiting.delete(sessionId);
    else waiting.set(sessionId, others);
  }

  function grant(entry: Entry): void {
    outOfLine(entry);
    enter(entry);
    entry.grant();
  }

  /** Grants what can be granted now, by whose turn it is: a few steps for each, however many wait. */
  function grantAll(): void {
    while (occupied < size && grantNext(forPlaces)) isFresh = false;
    while (behind < MAX_BEHIND && grantNext(forBehind));
  }

  function grantNext(order: FairOrder<Line>): boolean {
    const next = order.next(({ entries: [first] }) => first !== undefined && isRoom(first));
    const [first] = next?.entries ?? [];
    if (!next || !first) return false;
    order.served(next);
    grant(first);
    return true;
  }

  /** The limit of the tenant's own tier, where the queue or the action has named another. */
  function askLimit({ tenant, tenantId, tier }: Entry): void {
    const nowMs = clock.now();
    if (nowMs - tenant.askedAtMs < LIMIT_MS) return;
    tenant.askedAtMs = nowMs;
    atOnce(tenantId, tier).then(
      (limit) => {
        tenant.limit = limit;
        look(tenant);
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
    const counts = { behind: 0, bytes: 0, limit, askedAtMs };
    const made: TenantPlaces = { inHand: new Map(), waiting: new Map(), lines: new Set(), ...counts };
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
      ...{
        cameAtMs: clock.now(),
        bytes: delivery.bytes ?? 0,
        tenant,
        line,
        source,
        state: 'waiting',
        place,
        grant: come.resolve,
      },
      ...{ started: started.promise, start: started.resolve },
    };
    granted.set(place, entry);
    if (entry.turn) unstarted.set(taskKey(entry.tenantId, entry.turn.taskId), entry);
    const isFirst =
      !lines.has(line) || (tenant.inHand.has(entry.sessionId) && !tenant.waiting.has(entry.sessionId));
    if (isFirst && hasRoom(entry) && isRoom(entry)) {
      enter(entry);
      return entry;
    }
    intoLine(entry);
    askLimit(entry);
    throw new SetAside(place);
  }

  return {
    size,
    queued(tenantId, taskId) {
      const { turn, cameAtMs: createdAtMs = 0 } = unstarted.get(taskKey(tenantId, taskId)) ?? {};
      if (!turn) return undefined;
      const { sessionId, agentId = DEFAULT_AGENT_ID } = turn;
      return { taskId, tenantId, sessionId, agentId, status: 'queued', createdAtMs };
    },
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

/** The directory for those who ask and cancel: what waits for a place is a turn like others. */
export function withPlaces<D extends Pick<Directory, 'turn' | 'cancel'>>(
  directory: D,
  places: Pick<Places, 'queued' | 'hasten'>,
): D & Pick<Directory, 'turn' | 'cancel'> {
  const asked: Pick<Directory, 'turn' | 'cancel'> = {
    async turn(tenantId, taskId) {
      const queued = places.queued(tenantId, taskId);
      const found = await directory.turn(tenantId, taskId);
      return queued && !found.ok && found.error.code === 'NOT_FOUND' ? { ok: true, value: queued } : found;
    },
    async cancel(tenantId, taskId) {
      await places.hasten(tenantId, taskId);
      return directory.cancel(tenantId, taskId);
    },
  };
  return { ...directory, ...asked };
}

const taskKey = (tenantId: TenantId, taskId: TaskId): string => `${tenantId} ${taskId}`;

/** Of a queue that has come since; there is none. */
const NO_SOURCE: Subscription = {
  queue: queueNameSchema.parse('-'),
  group: '-',
  weight: 1,
  share: 1,
};
