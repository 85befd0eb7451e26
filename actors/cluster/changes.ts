/** Follows what other nodes store, beat by beat: what was missed by a broadcast is in force a second or two later. */
import type { AgentNews } from '../../src/domain/broadcast.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import type { Tier } from '../../src/domain/tiers.ts';
import { CHANGES_MS, type ChangeFeed } from '../../src/ports/cluster.ts';
import type { Log } from '../../src/ports/telemetry.ts';

export interface ChangeReaderDeps {
  /** Absent: nobody else writes. */
  readonly feed: ChangeFeed | undefined;
  readonly everyMs: number;
  readonly agents: {
    outdated(news: AgentNews): void;
    /** Changes may have been missed: nothing that is known can be relied on. */
    invalidateAll(): void;
  };
  readonly tiers: {
    /** Those that may have a tier in memory. */
    tenants(): Iterable<TenantId>;
    /** The stored one. */
    stored(tenantId: TenantId): Promise<Tier | undefined>;
    set(tenantId: TenantId, tier: Tier): void;
  };
  readonly log: Log;
  /** Milliseconds on a clock that never goes back. */
  readonly now?: () => number;
}

export interface ChangeReader {
  start(): void;
  /** Reads once. Never rejects. */
  read(): Promise<void>;
  close(): Promise<void>;
}

/** Between two times that old changes are deleted. */
const FORGET_MS = 600_000;

export function createChangeReader(deps: ChangeReaderDeps): ChangeReader {
  const { feed, everyMs, agents, tiers, log, now = () => performance.now() } = deps;
  /** Those of the last answer: what is older does not come again. Applied once each, those of this node too. */
  let applied: ReadonlySet<number> = new Set();
  let readAtMs = now();
  let forgotAtMs = now();
  let failing = false;
  let timer: NodeJS.Timeout | undefined;
  let reading: Promise<void> | undefined;
  let closed = false;

  async function read(): Promise<void> {
    if (!feed) return;
    const askedAtMs = now();
    try {
      const changes = await feed.recent();
      const missed = askedAtMs - readAtMs > CHANGES_MS;
      if (failing) log.info({}, 'changes of other nodes are followed again');
      failing = false;
      const fresh = changes.filter(({ seq }) => !applied.has(seq));
      if (missed) agents.invalidateAll();
      for (const change of fresh) if (change.type === 'agent') agents.outdated(change.news);
      const retiered = fresh.flatMap((change) => (change.type === 'tier' ? change.tenantId : []));
      await readTiers(missed ? [...tiers.tenants()] : retiered);
      readAtMs = askedAtMs;
      applied = new Set(changes.map(({ seq }) => seq));
      if (askedAtMs - forgotAtMs < FORGET_MS) return;
      forgotAtMs = askedAtMs;
      await feed.forget();
    } catch (error) {
      if (!failing && !closed) log.warn({ err: error }, 'changes of other nodes could not be read');
      failing = true;
    }
  }

  /** Read anew, since the order in which changes are numbered is not that of their commits. */
  async function readTiers(tenants: readonly TenantId[]): Promise<void> {
    for (const tenantId of new Set(tenants)) {
      const tier = await tiers.stored(tenantId);
      if (tier) tiers.set(tenantId, tier);
    }
  }

  function again(): void {
    if (closed || !feed) return;
    timer = setTimeout(() => {
      reading = read().finally(again);
    }, everyMs);
  }

  return {
    start: again,
    read,
    async close() {
      closed = true;
      clearTimeout(timer);
      await reading;
    },
  };
}
