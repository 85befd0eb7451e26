/**
 * Bytes that were written to clients and that they have not taken: bounded for each tenant and for the node. What would
 * go beyond waits as it is, unwritten; who holds what others wait for, and takes nothing, is cut off.
 */
import type { TenantId } from '../../src/domain/ids.ts';

/** Unsent bytes of one tenant, and of all, from which on large writes wait. */
export const MAX_TENANT_UNSENT_BYTES = 32 * 1024 * 1024;
const MAX_UNSENT_BYTES = 128 * 1024 * 1024;
/** Where writes that do not wait bring a tenant beyond so many times its bound, its slowest client is cut off. */
const SLACK = 2;
/** How long a client may take nothing while others wait for its room. */
const STANDSTILL_MS = 5_000;
const SWEEP_MS = 1_000;

/** One client's part. */
export interface UnsentAccount {
  /** What it has not taken now. */
  set(bytes: number): void;
  /** Whether a large write may be made now. */
  hasRoom(): boolean;
  /** Calls back once there is room, in the order of the calls. */
  whenRoom(write: () => void): void;
  /** Its client is gone. Safe to call twice. */
  close(): void;
}

export interface UnsentBytes {
  /** `cut` is called at most once, where the client has to go. */
  open(tenantId: TenantId | undefined, cut: () => void): UnsentAccount;
  /** All that is unsent now. */
  bytes(): number;
}

interface Account {
  readonly tenant: TenantAccounts;
  readonly cut: () => void;
  bytes: number;
  /** When it last took something, or was last given something. */
  movedAtMs: number;
}

interface TenantAccounts {
  open: number;
  bytes: number;
  /** Those that hold something. */
  readonly holders: Set<Account>;
}

export function createUnsentBytes(): UnsentBytes {
  const tenants = new Map<TenantId | undefined, TenantAccounts>();
  /** Oldest first. */
  const waiting = new Map<Account, () => void>();
  let bytes = 0;
  let granting = false;
  let timer: NodeJS.Timeout | undefined;

  const hasRoom = ({ tenant }: Account): boolean =>
    tenant.bytes < MAX_TENANT_UNSENT_BYTES && bytes < MAX_UNSENT_BYTES;

  function set(account: Account, now: number): void {
    const { tenant } = account;
    const more = now - account.bytes;
    if (more === 0) return;
    account.bytes = now;
    account.movedAtMs = performance.now();
    tenant.bytes += more;
    bytes += more;
    if (now > 0) tenant.holders.add(account);
    else tenant.holders.delete(account);
    if (more < 0 && waiting.size > 0) grantSoon();
    if (more > 0 && tenant.bytes > SLACK * MAX_TENANT_UNSENT_BYTES) slowest(tenant)?.cut();
  }

  /** In a loop turn of its own: whoever frees room may be in the middle of a write. */
  function grantSoon(): void {
    if (granting) return;
    granting = true;
    setImmediate(() => {
      granting = false;
      for (const [account, write] of [...waiting]) {
        if (!hasRoom(account)) continue;
        waiting.delete(account);
        write();
      }
      if (waiting.size === 0) stopTimer();
    });
  }

  function sweep(): void {
    const stillMs = performance.now() - STANDSTILL_MS;
    for (const { holders } of [...tenants.values()])
      for (const account of [...holders]) if (account.movedAtMs < stillMs) account.cut();
    grantSoon();
  }

  function stopTimer(): void {
    clearInterval(timer);
    timer = undefined;
  }

  return {
    open(tenantId, cut) {
      const tenant = tenants.get(tenantId) ?? { open: 0, bytes: 0, holders: new Set<Account>() };
      tenants.set(tenantId, tenant);
      tenant.open += 1;
      let isOver = false;
      const account: Account = {
        tenant,
        bytes: 0,
        movedAtMs: performance.now(),
        cut: () => {
          if (!isOver) cut();
        },
      };
      return {
        set: (now) => {
          if (!isOver) set(account, now);
        },
        hasRoom: () => hasRoom(account),
        whenRoom(write) {
          if (isOver) return;
          waiting.set(account, write);
          timer ??= setInterval(sweep, SWEEP_MS).unref();
          grantSoon();
        },
        close() {
          if (isOver) return;
          set(account, 0);
          isOver = true;
          tenant.open -= 1;
          if (tenant.open === 0) tenants.delete(tenantId);
          waiting.delete(account);
          if (waiting.size === 0) stopTimer();
        },
      };
    },
    bytes: () => bytes,
  };
}

/** The one that holds most. */
function slowest({ holders }: TenantAccounts): Account | undefined {
  let most: Account | undefined;
  for (const account of holders) if (account.bytes > (most?.bytes ?? 0)) most = account;
  return most;
}
