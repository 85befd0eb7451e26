/** The nodes that share a database: what each asks of the tables in which they stand, and hear of each other. */
import type { AgentNews } from '../domain/broadcast.ts';
import type { TenantId } from '../domain/ids.ts';

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
  /** Deletes the rows of nodes that have been dead for a week and that nothing refers to. Resolves to how many. */
  forgetNodes(): Promise<number>;
}
