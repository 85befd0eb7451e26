/** The batches that run on this node, and those that have ended here lately, within bounds. */
import type { TenantId } from '../../src/domain/ids.ts';
import type { BatchItem } from '../../src/domain/turn-schemas.ts';
import type { ItemRequest } from '../../src/ports/batches.ts';

export interface BatchBounds {
  readonly runningPerTenant: number;
  readonly running: number;
  /** Batches that are answered from memory; the oldest finished ones make room. */
  readonly keptPerTenant: number;
  readonly kept: number;
  /** UTF-16 units of all kept results together. */
  readonly keptUnits: number;
}

export const BATCH_BOUNDS: BatchBounds = {
  runningPerTenant: 10,
  running: 500,
  keptPerTenant: 100,
  kept: 2_000,
  keptUnits: 32 * 1024 * 1024,
};

export interface RunningItem {
  /** Dropped once it has ended: it holds the input. */
  request: ItemRequest | null;
  body: BatchItem;
}

/** One whose items run here. */
export interface RunningBatch {
  readonly id: string;
  readonly tenantId: TenantId;
  readonly concurrency: number;
  readonly items: readonly RunningItem[];
  /** Items that have not ended. */
  open: number;
  units: number;
}

/**
 * By hand and not an LRU cache: batches that run are never dropped, and a tenant's own batches make room for its new ones
 * first.
 */
export function createBatchMemory(bounds: BatchBounds) {
  /** Oldest first. */
  const batches = new Map<string, RunningBatch>();
  let keptUnits = 0;

  /** Drops what is over the bounds, the tenant's own batches first. */
  function makeRoom(tenantId: TenantId): void {
    const own = [...batches.values()].filter((batch) => batch.tenantId === tenantId);
    let ownCount = own.length;
    for (const batch of own) {
      if (ownCount <= bounds.keptPerTenant) break;
      if (drop(batch)) ownCount -= 1;
    }
    for (const batch of batches.values()) {
      if (batches.size <= bounds.kept && keptUnits <= bounds.keptUnits) return;
      drop(batch);
    }
  }

  function drop(batch: RunningBatch): boolean {
    if (batch.open > 0) return false;
    keptUnits -= batch.units;
    return batches.delete(batch.id);
  }

  const running = (): readonly RunningBatch[] => [...batches.values()].filter(({ open }) => open > 0);

  return {
    /** Those that are over, and not stored as such. */
    unsaved: new Set<RunningBatch>(),
    get: (id: string) => batches.get(id),
    running,
    /** Whether a tenant may have one more running here. */
    hasRoom(tenantId: TenantId): boolean {
      const open = running();
      const own = open.filter((batch) => batch.tenantId === tenantId);
      return own.length < bounds.runningPerTenant && open.length < bounds.running;
    },
    put(batch: RunningBatch): void {
      batches.set(batch.id, batch);
      makeRoom(batch.tenantId);
    },
    /** An item of the batch has ended, with a result of so many units. */
    ended(batch: RunningBatch, units: number): void {
      batch.units += units;
      keptUnits += units;
      batch.open -= 1;
      if (batch.open === 0) makeRoom(batch.tenantId);
    },
  };
}
