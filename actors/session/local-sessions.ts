/**
 * The sessions that live on this node, as its directory and the clients of other nodes reach them: each question is
 * answered once, or refused with a code. What does not live here is not made here.
 */
import { CLOSE, type ErrorData, type Reply, refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import type { Tier } from '../../src/domain/tiers.ts';
import {
  type Caller,
  type CancelReply,
  held,
  type RunningTool,
  type SayReply,
  sizeOf,
  type TurnRecord,
  type TurnRequest,
  type TurnStanding,
} from '../../src/domain/turn.ts';
import type { LocalSessions, Placement, SessionKey } from '../../src/ports/cluster.ts';
import type { Client } from '../../src/ports/sessions.ts';
import { type Clock, type Log, type Metrics, pause, systemTimers } from '../../src/ports/telemetry.ts';
import type { ExecutionMessage } from '../execution/execution.ts';
import type { Registry, SessionRef } from '../registry.ts';
import type { ActorSystem, ReplyTo } from '../runtime/actor.ts';
import { AskError, type AskFailure } from '../runtime/asks.ts';
import type { Activate } from './activation.ts';
import { logSaid } from './effects.ts';
import { taskTaken } from './ending.ts';
import type { SessionMessage } from './protocol.ts';

/** An answer that takes longer than this is given up; the turn itself may still be accepted. */
const ANSWER_MS = 30_000;
/** Cancelled turns get this long to end when the node drains. */
const CANCEL_GRACE_MS = 5_000;
/** Clients of a draining node come back after a random part of this. */
export const RECONNECT_SPREAD_MS = 5_000;
/** Between two looks of a draining node at the sessions that it has still. */
const HAND_OVER_MS = 100;
/** A draining node waits so long for the store to take back what it gave up. */
const RELEASE_MS = 3_000;

interface LocalSessionsDeps {
  readonly actors: ActorSystem;
  readonly registry: Registry;
  readonly activate: Activate;
  readonly placement: Pick<Placement, 'release'>;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly defaultTier: Tier;
}

/**
 * drain(): from now on no new turns; clients are told; sessions in which nothing runs are given up, and the others as
 * their turns end; resolves when all turns have ended, those cancelled that still ran after `graceMs`; then clients are
 * closed with 1012.
 */
export interface NodeSessions extends LocalSessions {
  /** The next place in the order in which turns are heard of (`TurnRequest.arrival`). */
  arrival(): number;
  isDraining(): boolean;
  /** Why a request of this size can not be taken; undefined: it can. */
  noRoom(request: TurnRequest): ErrorData | undefined;
  drain(graceMs: number): Promise<void>;
}

interface Parts extends LocalSessionsDeps {
  readonly arrival: () => number;
  draining: boolean;
}

export function createLocalSessions(deps: LocalSessionsDeps): NodeSessions {
  const { registry, actors, clock, activate } = deps;
  let arrivals = 0;
  const parts: Parts = {
    ...deps,
    draining: false,
    arrival() {
      arrivals += 1;
      return arrivals;
    },
  };
  const refOf = ({ tenantId, sessionId }: SessionKey): SessionRef | undefined =>
    registry.session(tenantId, sessionId);
  return {
    has: (key) => refOf(key)?.unplaced === false,
    activate: (key, owned, opening) => void activate(key, owned, opening),
    attach(caller, sessionId, client, resume) {
      const ref = registry.session(caller.tenantId, sessionId);
      if (!ref || (ref.unplaced && !parts.draining)) return undefined;
      ref.arriving.set(client.id, client);
      const attach = { type: 'attach', clientId: client.id, tier: caller.tier, resume } as const;
      const atMs = clock.now();
      if (actors.offer(ref.address, { ...attach, atMs }) === 'delivered') return true;
      ref.arriving.delete(client.id);
      turnAway(client, refusal('OVERLOADED', { retryAfterMs: 1_000 }), atMs);
      return true;
    },
    detach(key, clientId) {
      const ref = refOf(key);
      if (!ref) return;
      ref.arriving.delete(clientId);
      ref.stream.detach(clientId);
      actors.tell(ref.address, { type: 'detach', clientId });
    },
    say(request, observer) {
      const ref = registry.session(request.caller.tenantId, request.sessionId);
      if (!ref || (ref.unplaced && !request.ephemeral && !parts.draining)) return undefined;
      return say(parts, ref, request, observer);
    },
    cancel: (tenantId, taskId) => cancel(parts, tenantId, taskId),
    inquire: (tenantId, taskId) => inquire(parts, tenantId, taskId),
    forget(key) {
      const ref = refOf(key);
      return (
        ref &&
        ask<Reply<null>>(
          parts,
          ref,
          (replyTo) => ({ type: 'forget', replyTo, atMs: clock.now() }),
          (error) => ({ ok: false, error }),
        )
      );
    },
    async yield(key, unless) {
      const ref = refOf(key);
      return !ref || giveUp(parts, ref, unless === 'attached');
    },
    arrival: parts.arrival,
    isDraining: () => parts.draining,
    noRoom: (request) =>
      registry.hasRoom(request.caller.tenantId, sizeOf(request, false))
        ? undefined
        : noRoom(parts, request.caller),
    drain: (graceMs) => drain(parts, graceMs),
  };
}

/** Refuses a client that can not be attached. */
export function turnAway(client: Client, data: ErrorData, atMs: number): void {
  client.send({ type: 'error', seq: undefined, atMs, taskId: undefined, data });
  client.close(CLOSE.overloaded);
}

/** Asks a session, and turns a lost question into a refusal. */
async function ask<R>(
  { actors }: Parts,
  ref: SessionRef,
  make: (replyTo: ReplyTo<R>) => SessionMessage,
  lost: (error: ErrorData, reason: AskFailure) => R,
  taken?: () => void,
): Promise<R> {
  try {
    return await actors.ask<SessionMessage, R>(ref.address, ANSWER_MS, make, taken);
  } catch (error) {
    if (!(error instanceof AskError)) throw error;
    return lost(refusal('OVERLOADED', { retryAfterMs: 1_000 }), error.reason);
  }
}

/** Not asynchronous: what waits for the reply must not hold the request as it came. */
function say(
  parts: Parts,
  ref: SessionRef,
  given: TurnRequest,
  observer: Client | undefined,
): Promise<SayReply> {
  const { taskId, caller } = given;
  // First as it came: what finds no room need not be made smaller.
  if (parts.registry.hasRoom(caller.tenantId, sizeOf(given, false)))
    return sayHeld(parts, ref, held(given), observer);
  return Promise.resolve({ ok: false, taskId, error: noRoom(parts, caller) });
}

async function sayHeld(
  parts: Parts,
  ref: SessionRef,
  request: TurnRequest,
  observer: Client | undefined,
): Promise<SayReply> {
  const { registry } = parts;
  const { caller, taskId } = request;
  const no = (error: ErrorData): SayReply => ({ ok: false, taskId, error });
  if (parts.draining) return no(refusal('DRAINING', { retryAfterMs: 1_000 }));
  const bytes = sizeOf(request, observer !== undefined);
  const arrival = request.arrival ?? parts.arrival();
  const live = request.taskIdGiven ? registry.turn(caller.tenantId, taskId) : undefined;
  if (!live && !registry.hasRoom(caller.tenantId, bytes)) return no(noRoom(parts, caller));
  if (live && live.session !== ref) return no(taskTaken());
  // From here on a cancel finds it, and a drain waits for it; the session takes it off again.
  if (!live) registry.track(ref, taskId, caller.tier ?? parts.defaultTier, bytes);
  if (observer) ref.stream.watch(observer);
  const tenant = ref.tenant.address;
  parts.actors.tell(tenant, { type: 'arrived', arrival });
  const reply = await ask<SayReply>(
    parts,
    ref,
    (replyTo) => ({ type: 'said', request, arrival, replyTo, atMs: parts.clock.now() }),
    (error, reason) => {
      if (!live && reason === 'full') registry.untrack(ref, taskId);
      return no(error);
    },
  );
  // One that was accepted has been admitted.
  if ((!reply.ok || reply.accepted.deduplicated) && parts.actors.isAlive(tenant))
    parts.actors.tell(tenant, { type: 'departed', arrival });
  if (observer && !reply.ok) ref.stream.detach(observer.id);
  logSaid(parts.log, request, reply);
  return reply;
}

/** The turns that wait and run hold as much as they may. */
function noRoom({ metrics, defaultTier }: Parts, { tier }: Caller): ErrorData {
  metrics.turnRefused(tier ?? defaultTier, 'OVERLOADED');
  const message = 'Turns that wait hold too much memory already; retry later.';
  return refusal('OVERLOADED', { message, retryAfterMs: 1_000 });
}

function cancel(
  parts: Parts,
  tenantId: TenantId,
  taskId: TurnRequest['taskId'],
): Promise<CancelReply> | undefined {
  const live = parts.registry.turn(tenantId, taskId);
  if (!live) return undefined;
  return ask<CancelReply>(
    parts,
    live.session,
    (replyTo) => ({ type: 'cancel', taskId, replyTo, atMs: parts.clock.now() }),
    (error) => ({ ok: false, taskId, error }),
    /** Once the session has its message the run need not wait for the two mailboxes between. */
    () => {
      const { execution } = live.session;
      if (execution?.taskId === taskId) execution.abort.abort();
    },
  );
}

function inquire(
  parts: Parts,
  tenantId: TenantId,
  taskId: TurnRequest['taskId'],
): Promise<TurnStanding | null> | undefined {
  const live = parts.registry.turn(tenantId, taskId);
  if (!live) return undefined;
  return ask<TurnRecord | null>(
    parts,
    live.session,
    (replyTo) => ({ type: 'inquire', taskId, replyTo }),
    () => null,
  ).then((found) => found && standing(parts, live.session, found));
}

/** What runs for a turn is its execution's to say. */
async function standing(
  { actors }: Parts,
  { execution }: SessionRef,
  record: TurnRecord,
): Promise<TurnStanding> {
  if (execution?.taskId !== record.taskId) return record;
  const tools = await actors
    .ask<ExecutionMessage, readonly RunningTool[]>(execution.address, ANSWER_MS, (replyTo) => ({
      type: 'inquire',
      replyTo,
    }))
    .catch(() => []);
  return { ...record, tools };
}

/** Mail that came meanwhile keeps it: it is looked at once more after it was told. */
async function giveUp(parts: Parts, ref: SessionRef, guestsToo: boolean): Promise<boolean> {
  if (ref.unplaced) return false;
  const released = new Promise<void>((resolve) => {
    ref.whenReleased = [...(ref.whenReleased ?? []), resolve];
  });
  const may = await ask<boolean>(
    parts,
    ref,
    (replyTo) => ({ type: 'yield', guestsToo, replyTo }),
    (_, reason) => reason === 'dead',
  );
  if (!may || parts.actors.isAlive(ref.address)) return false;
  await released;
  return true;
}

async function drain(parts: Parts, graceMs: number): Promise<void> {
  const { actors, registry, clock } = parts;
  parts.draining = true;
  for (const ref of registry.sessions()) {
    const reconnectAfterMs = Math.floor(Math.random() * RECONNECT_SPREAD_MS);
    actors.tell(ref.address, { type: 'drain', reconnectAfterMs, atMs: clock.now() });
  }
  /** Their turns may have been left unfinished, for another node to go on with: that gets them when this one is gone. */
  let kept: ReadonlySet<SessionRef> = new Set();
  if (!(await handingOver(parts, registry.quiet(graceMs)))) {
    kept = registry.busySessions();
    for (const ref of registry.sessions())
      actors.tell(ref.address, { type: 'drainExpired', atMs: clock.now() });
    await registry.quiet(CANCEL_GRACE_MS);
  }
  await handOver(parts, kept);
  const drained = [...registry.sessions()].map((ref) =>
    ask<null>(
      parts,
      ref,
      (replyTo) => ({ type: 'drained', replyTo }),
      () => null,
    ),
  );
  await Promise.all(drained);
}

/** Gives up, while that is waited for, the sessions in which nothing runs any more. */
async function handingOver(parts: Parts, quiet: Promise<boolean>): Promise<boolean> {
  const over = new AbortController();
  const end = quiet.finally(() => over.abort());
  while (!over.signal.aborted) {
    void handOver(parts, parts.registry.busySessions());
    await pause(systemTimers, HAND_OVER_MS, over.signal);
  }
  return end;
}

/** All but those. A session that is given up takes no turns any more, and its clients are closed once it is free. */
async function handOver({ registry, placement }: Parts, kept: ReadonlySet<SessionRef>): Promise<void> {
  const released: Promise<void>[] = [];
  for (const ref of registry.sessions()) {
    if (ref.unplaced || kept.has(ref)) continue;
    ref.unplaced = true;
    const key = { tenantId: ref.tenant.tenantId, sessionId: ref.sessionId };
    released.push(placement.release(key, ref.epoch));
  }
  const done = new AbortController();
  const all = Promise.all(released).finally(() => done.abort());
  await Promise.race([all, pause(systemTimers, RELEASE_MS, done.signal)]);
}
