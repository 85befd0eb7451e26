/** The nodes that share a database: the tables in which they stand, what they hear of each other, and who has a session. */
import type { AgentNews } from '../domain/broadcast.ts';
import type { Reply } from '../domain/errors.ts';
import type { SessionId, TaskId, TenantId } from '../domain/ids.ts';
import type { Tier } from '../domain/tiers.ts';
import type { Caller, CancelReply, SayReply, TurnRequest, TurnStanding } from '../domain/turn.ts';
import type { Client, ResumePoint } from './sessions.ts';
import type { Epoch } from './store.ts';

/** The number of one start of a node. It is minted by the database and never comes again. */
export type Boot = number;

/** `draining`: it is about to leave. `dead` is final, and nobody stands in a list of members with it. */
export type NodeState = 'live' | 'draining' | 'dead';

/** A boot that is not dead, as it was looked at. */
export interface Member {
  readonly boot: Boot;
  readonly nodeId: string;
  readonly state: NodeState;
  /** Raised by its node; compared for equality only. */
  readonly beat: number;
  readonly version: string;
  /** Whether the connection that its beats come by is there. A hint: a pooler may hold it without its node. */
  readonly connected: boolean;
}

/** What a beat is answered with. */
export interface Look {
  /** This node's own state; null: it is dead. */
  readonly mine: NodeState | null;
  readonly members: readonly Member[];
  /** Messages without a node that this beat has handed to this one to send. */
  readonly adopted: number;
  /** Sessions of this node that others ask for since they can not reach it: some of them, again with each beat. */
  readonly wanted: readonly Wanted[];
}

/** A session of this node that another asks for, and by which epoch its row says that this node has it. */
export interface Wanted {
  readonly key: SessionKey;
  readonly epoch: Epoch;
  readonly by: Boot;
}

/**
 * `renewed`: its beat is another by now, so that nothing is to be concluded. What `buried` and `dead already` say is
 * final: every write of that boot was committed before, or never will be.
 */
export type Burial = 'buried' | 'renewed' | 'dead already';

/**
 * The table of nodes. Any method rejects where the database is away. Once it has a boot, every write of the store proves
 * that this boot is not dead, in its own transaction; one that can not is refused, and so is all that comes after.
 */
export interface NodeTable {
  /** Mints the boot of this start. From then on the store writes as this boot. */
  register(node: { readonly nodeId: string; readonly version: string }): Promise<Boot>;
  /** Names the database among all that nodes may stand on: theirs is the same for all nodes on it, and for no others. */
  database(): Promise<string>;
  /** Tells the others that this boot is about to leave. */
  drain(): Promise<void>;
  /** Raises the beat and looks at all members, on a connection of its own: a full pool must not look like death. */
  beat(): Promise<Look>;
  /**
   * Declares a boot dead, unless its beat is not `seen` any more (undefined: whatever it is), ends its unfinished turns as
   * INTERRUPTED, and leaves what it had to send to whoever beats next.
   */
  bury(boot: Boot, seen: number | undefined): Promise<Burial>;
  /** Calls back, once, when a write was refused since this boot is dead. */
  onSuperseded(listener: () => void): void;
}

/** One conversation among all of them. */
export interface SessionKey {
  readonly tenantId: TenantId;
  readonly sessionId: SessionId;
}

/** What a session is given when it comes to life here. */
export interface Owned {
  readonly epoch: Epoch;
  /** Names the log of its events to clients, who resume by it (`epoch` in `session.ready`). No two lives share one. */
  readonly log: string;
}

/** Where a session is. `there`: another node's, as far as this one knows. */
export type Place =
  | ({ readonly at: 'here' } & Owned)
  | { readonly at: 'there'; readonly owner: Boot; readonly epoch: Epoch };

/** Who has a session, and by which epoch. */
export interface Claimed {
  readonly boot: Boot;
  readonly epoch: Epoch;
}

/** The table in which each session that lives somewhere has its owner. Any method rejects where the database is away. */
export interface OwnerTable {
  /**
   * Claims sessions for this boot: those that nobody has, or a boot that is dead. One answer each, in their order: who has
   * it now, this boot too where it had it before; undefined where it changed hands all the while. No key comes twice.
   */
  claim(keys: readonly SessionKey[]): Promise<readonly (Claimed | undefined)[]>;
  /** Asks that boot for a session by its row: it reads it with a beat (`Look.wanted`). */
  want(key: SessionKey, owner: Boot): Promise<void>;
  /** The boot that runs an unfinished turn; undefined where there is none. */
  runner(tenantId: TenantId, taskId: TaskId): Promise<Boot | undefined>;
  /** Deletes what dead boots left, which is free anyhow; returns how many rows. */
  sweep(): Promise<number>;
}

/** `wanted`: a node that could not reach this one asks for a session of this one; `lost`: a node is gone for good. */
export type PlacementEvent =
  | ({ readonly type: 'wanted' } & Wanted)
  | { readonly type: 'lost'; readonly boot: Boot }
  | { readonly type: 'superseded' };

/**
 * Which node has a session: where one has its database to itself, always this one, in the same tick. Whoever is asked
 * first for a session that nobody has gets it. Several questions for one session are one claim, answered in their order.
 */
export interface Placement {
  /** Only for sessions that do not live here. Rejects with a RefusalError where nobody can say. */
  find(key: SessionKey): Place | Promise<Place>;
  /** For a run with a session of its own, which nobody else looks for. */
  unplaced(): Owned;
  /** Another node said that it has the session not: what was known of it is forgotten, and `find` looks anew. */
  moved(key: SessionKey): void;
  /** Gives a session up behind all that it wrote. Never rejects: what fails is tried again. */
  release(key: SessionKey, epoch: Epoch): Promise<void>;
  /** Asks an owner that does not answer to give the session up when it can. Rejects where the database is away. */
  want(key: SessionKey, owner: Boot): Promise<void>;
  listen(listener: (event: PlacementEvent) => void): void;
}

/** How a session comes to life: the tier that its first request named, and whether it is for one run alone. */
export interface Opening {
  readonly tier: Tier | undefined;
  readonly ephemeral?: boolean;
}

/**
 * The sessions that live on this node, for the directory and for the guests of other nodes. Nothing but `activate`
 * makes one. Undefined says that the session, or the turn, does not live here: who asked may look for its owner.
 */
export interface LocalSessions {
  /** False of a session for a run alone, which is nobody else's yet. */
  has(key: SessionKey): boolean;
  /** A session that lives already stays as it is; one for a run alone is owned from now on. */
  activate(key: SessionKey, owned: Owned, opening: Opening): void;
  /** Attaches a client, as Directory.attach. */
  attach(
    caller: Caller,
    sessionId: SessionId,
    client: Client,
    resume: ResumePoint | undefined,
  ): true | undefined;
  detach(key: SessionKey, clientId: string): void;
  say(request: TurnRequest, observer?: Client): Promise<SayReply> | undefined;
  cancel(tenantId: TenantId, taskId: TaskId): Promise<CancelReply> | undefined;
  /** Null: it ended meanwhile. */
  inquire(tenantId: TenantId, taskId: TaskId): Promise<TurnStanding | null> | undefined;
  forget(key: SessionKey): Promise<Reply<null>> | undefined;
  /**
   * Gives a session up where nothing runs in it: true once it is released. `unless`: what keeps it, besides what runs:
   * any client, or only those of this node (`isGuest`).
   */
  yield(key: SessionKey, unless: 'attached' | 'attached here'): Promise<boolean>;
}

/** The id at its owner of a client that another node has: the ids of a node's own clients hold no slash. */
export const guestId = (boot: Boot, clientId: string): string => `${boot}/${clientId}`;
export const isGuest = (clientId: string): boolean => clientId.includes('/');
/** Something that was stored and that every node must know of; `seq` names it. */
export type StoredChange = { readonly seq: number } & (
  | { readonly type: 'agent'; readonly news: AgentNews }
  | { readonly type: 'tier' | 'template'; readonly tenantId: TenantId; readonly id: string }
);

/** What the nodes of a database, and commands beside them, have stored. Any method rejects where the database is away. */
export interface ChangeFeed {
  /** Everything of the last seconds by the database's clock: more than CHANGES_MS of it, so that who asks each second misses nothing. */
  recent(): Promise<readonly StoredChange[]>;
  /** Deletes what is more than an hour old. */
  forget(): Promise<void>;
}

/** Who has not asked for longer may have missed a change. */
export const CHANGES_MS = 10_000;

/** Jobs of a database that several nodes share. Any method rejects where it is away. */
export interface JobRuns {
  /** Whether this node is to run the job today, by the database's UTC day: the first that asks is. */
  begin(job: string): Promise<boolean>;
}
