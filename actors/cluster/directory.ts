/**
 * The directory of one node of several: what lives here is reached as on a node alone, one look-up further; what lives on
 * another is asked there, over the links. Where its owner can not be reached so it is sought by its row (seeking.ts).
 */
import { defined } from '../../src/domain/defined.ts';
import { type ErrorData, RefusalError, type Reply, refusal } from '../../src/domain/errors.ts';
import type { SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import {
  type CancelReply,
  held,
  isEndStatus,
  type SayReply,
  type TurnRequest,
  type TurnStanding,
} from '../../src/domain/turn.ts';
import { storableRequest } from '../../src/domain/turn-request.ts';
import type { Boot, OwnerTable, Placement, SessionKey } from '../../src/ports/cluster.ts';
import type { Client, Directory } from '../../src/ports/sessions.ts';
import { type Log, pause, systemTimers } from '../../src/ports/telemetry.ts';
import type { System } from '../system.ts';
import type { LinkOutcome, Links } from './links.ts';
import { cancelReplySchema, forgottenSchema, sayReplySchema, standingSchema } from './questions.ts';
import type { RemoteClients } from './remote-clients.ts';

/** It is found out for so long who has a session. */
const PATIENCE_MS = 3_000;
/** Owners that are asked before a session is sought by its row. */
const MAX_MOVES = 4;
const MOVED_MS = 5;

interface ClusterDirectoryDeps {
  readonly system: System;
  readonly links: Pick<Links, 'ask'>;
  readonly clients: Pick<RemoteClients, 'attach' | 'watch' | 'watched' | 'detach'>;
  readonly placement: Pick<Placement, 'moved'>;
  readonly owners: Pick<OwnerTable, 'runner'>;
  /** This node's. */
  readonly boot: () => Boot | undefined;
  readonly log: Log;
}

export function createClusterDirectory(deps: ClusterDirectoryDeps): Directory {
  const { system, clients } = deps;
  const { local } = system;
  return {
    attach(caller, sessionId, client, resume) {
      if (!local.attach(caller, sessionId, client, resume)) clients.attach(caller, sessionId, client, resume);
    },
    detach(tenantId, sessionId, clientId) {
      if (!clients.detach(clientId)) system.detach(tenantId, sessionId, clientId);
    },
    say: (request, observer) =>
      local.say(request, observer) ??
      (request.ephemeral ? system.say(request, observer) : say(deps, request, observer)),
    cancel: (tenantId, taskId) => cancel(deps, tenantId, taskId),
    turn: (tenantId, taskId) => turn(deps, tenantId, taskId),
    messages: system.messages,
    push: system.push,
    forget: (tenantId, sessionId) =>
      local.has({ tenantId, sessionId })
        ? system.forget(tenantId, sessionId)
        : forget(deps, { tenantId, sessionId }),
    stats: system.stats,
  };
}

const ask = ({ links }: ClusterDirectoryDeps, owner: Boot, of: string, body: unknown): Promise<LinkOutcome> =>
  new Promise((resolve) => links.ask(owner, of, body, resolve));

/** Asks whoever has a session, and who has it next where it has moved. 'here': that is this node. */
async function askOwner(
  { system, placement }: ClusterDirectoryDeps,
  key: SessionKey,
  tier: TurnRequest['caller']['tier'],
  question: (owner: Boot) => Promise<LinkOutcome>,
): Promise<LinkOutcome | 'here'> {
  for (let moves = 0; ; moves += 1) {
    const owner = await system.locate(key, { tier }, PATIENCE_MS);
    if (owner === undefined) return 'here';
    const outcome = await question(owner);
    const hasMoved = outcome.type === 'notMine' || (outcome.type === 'lost' && outcome.why === 'gone');
    if (hasMoved) placement.moved(key);
    if (!hasMoved || moves === MAX_MOVES) return outcome;
    await pause(systemTimers, MOVED_MS, new AbortController().signal);
  }
}

async function say(
  deps: ClusterDirectoryDeps,
  given: TurnRequest,
  observer: Client | undefined,
): Promise<SayReply> {
  const { system } = deps;
  const { caller, sessionId, taskId } = given;
  const key = { tenantId: caller.tenantId, sessionId };
  const no = (error: ErrorData): SayReply => ({ ok: false, taskId, error });
  const full = system.local.isDraining()
    ? refusal('DRAINING', { retryAfterMs: 1_000 })
    : system.local.noRoom(given);
  if (full) return no(full);
  const request = { ...held(given), arrival: given.arrival ?? system.local.arrival() };
  try {
    const outcome = await askOwner(deps, key, caller.tier, (owner) =>
      sayThere(deps, owner, request, observer),
    );
    if (outcome === 'here') return await system.say(request, observer);
    const reply = saidOf(outcome);
    if (reply && (reply.ok || reply.error.code !== 'DRAINING')) return reply;
    if (outcome.type === 'refused') return no(outcome.error);
    if (outcome.type === 'lost' && outcome.why === 'full')
      return no(refusal('OVERLOADED', { retryAfterMs: 1_000 }));
    // Its owner may have heard it, and taken it: then it is one that was said before.
    const isDoubtful = outcome.type === 'lost' && outcome.why !== 'gone';
    return await system.say(isDoubtful ? { ...request, taskIdGiven: true } : request, observer);
  } catch (error) {
    if (error instanceof RefusalError) return no(error.data);
    throw error;
  }
}

async function sayThere(
  deps: ClusterDirectoryDeps,
  owner: Boot,
  request: TurnRequest,
  observer: Client | undefined,
): Promise<LinkOutcome> {
  const { clients } = deps;
  const { caller, sessionId, taskId } = request;
  const watch = observer && clients.watch(caller, sessionId, observer, taskId, owner);
  const outcome = await ask(deps, owner, 'say', { request: storableRequest(request), watch });
  const reply = saidOf(outcome);
  if (observer) clients.watched(observer.id, reply?.ok === true && !reply.accepted.deduplicated);
  return outcome;
}

function saidOf(outcome: LinkOutcome): SayReply | undefined {
  const reply = outcome.type === 'ok' ? sayReplySchema.safeParse(outcome.value).data : undefined;
  return reply?.ok ? { ...reply, accepted: defined(reply.accepted) } : reply;
}

/** What the node that runs an unfinished turn says of it; undefined where none does. */
async function askRunner(
  deps: ClusterDirectoryDeps,
  of: 'cancel' | 'inquire',
  tenantId: TenantId,
  taskId: TaskId,
): Promise<unknown> {
  const runner = await deps.owners.runner(tenantId, taskId).catch((error: unknown) => {
    deps.log.warn({ err: error, task_id: taskId }, 'it could not be read who runs a turn');
    return undefined;
  });
  if (runner === undefined || runner === deps.boot()) return undefined;
  const outcome = await ask(deps, runner, of, { tenantId, taskId });
  return outcome.type === 'ok' ? outcome.value : undefined;
}

async function cancel(deps: ClusterDirectoryDeps, tenantId: TenantId, taskId: TaskId): Promise<CancelReply> {
  const { system } = deps;
  const isTold = (reply: CancelReply | undefined): reply is CancelReply =>
    reply !== undefined && (reply.ok || reply.error.code !== 'NOT_FOUND');
  const here = await system.local.cancel(tenantId, taskId);
  if (isTold(here)) return here;
  const there = cancelReplySchema.safeParse(await askRunner(deps, 'cancel', tenantId, taskId)).data;
  return isTold(there) ? there : system.cancel(tenantId, taskId);
}

async function turn(
  deps: ClusterDirectoryDeps,
  tenantId: TenantId,
  taskId: TaskId,
): Promise<Reply<TurnStanding>> {
  const { system } = deps;
  const live = await system.local.inquire(tenantId, taskId);
  if (live) return { ok: true, value: live };
  const stored = await system.turn(tenantId, taskId);
  if (!stored.ok || isEndStatus(stored.value.status)) return stored;
  const { data: there } = standingSchema.safeParse(await askRunner(deps, 'inquire', tenantId, taskId));
  if (there) return { ok: true, value: there };
  return there === null ? system.turn(tenantId, taskId) : stored;
}

async function forget(deps: ClusterDirectoryDeps, key: SessionKey): Promise<Reply<null>> {
  const { system } = deps;
  const { tenantId, sessionId } = key;
  // Nothing is claimed for what is not there.
  const known = await system.messages(tenantId, sessionId, { limit: 1, before: undefined });
  if (!known.ok) return known;
  try {
    const outcome = await askOwner(deps, key, undefined, (owner) => ask(deps, owner, 'forget', key));
    const reply =
      outcome !== 'here' && outcome.type === 'ok' ? forgottenSchema.safeParse(outcome.value).data : undefined;
    return reply && (reply.ok || reply.error.code !== 'BUSY') ? reply : system.forget(tenantId, sessionId);
  } catch (error) {
    if (error instanceof RefusalError) return { ok: false, error: error.data };
    throw error;
  }
}

/** Where a remote client's session is, found out as for a turn. */
export async function findPlace(
  system: Pick<System, 'locate'>,
  { tenantId, tier }: TurnRequest['caller'],
  sessionId: SessionId,
): Promise<
  | { readonly at: 'here' }
  | { readonly at: 'there'; readonly owner: Boot }
  | { readonly at: 'unknown'; readonly error: ErrorData }
> {
  try {
    const owner = await system.locate({ tenantId, sessionId }, { tier }, PATIENCE_MS);
    return owner === undefined ? { at: 'here' } : { at: 'there', owner };
  } catch (error) {
    const known = error instanceof RefusalError ? error.data : undefined;
    return { at: 'unknown', error: known ?? refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }) };
  }
}
