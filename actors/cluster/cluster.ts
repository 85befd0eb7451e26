/** A node's place among those that share its database: registers it, beats for it, and does what its membership decides. */
import type { Boot, Member, NodeTable } from '../../src/ports/cluster.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import type { LinkWatch } from './link-watch.ts';
import {
  type MembershipConfig,
  type MembershipEffect,
  type MembershipMessage,
  type MembershipState,
  membership,
  newMembership,
} from './membership.ts';
import type { SharedPlacement } from './shared-placement.ts';

export interface ClusterOptions {
  /** Absent: the node has the database to itself. */
  readonly table: NodeTable | undefined;
  readonly nodeId: string;
  readonly version: string;
  readonly config: MembershipConfig;
  readonly log: Log;
  /** Is told of nodes that are gone, of sessions that others ask for, and that this node was declared dead. */
  readonly placement?: Pick<SharedPlacement, 'lost' | 'wanted' | 'superseded'> | undefined;
  /** The links to the others; absent: nothing is said but by rows. */
  readonly links?: ClusterLinks | undefined;
  /** There is something to send that another node left. */
  readonly onAdopted: () => void;
  /** An operator has the node leave, or `drain` was called. Called once. */
  readonly onLeaving: () => void;
  /** This node was declared dead: nothing that it writes is stored. Called once. */
  readonly onSuperseded: () => void;
}

/** What the links to other nodes are told; `named`, `looked` and `lost` as those of LinkWatch. */
export interface ClusterLinks extends Pick<LinkWatch, 'named' | 'looked' | 'lost'> {
  /** This node has that boot. Awaited before it is a member. */
  opened(boot: Boot): Promise<void>;
}

export interface ClusterStats {
  readonly boot: Boot;
  readonly state: MembershipState['phase'] | MembershipState['mine'];
  /** Since the last beat that was answered, ms. */
  readonly beat_age_ms: number;
  readonly members: readonly {
    readonly boot: Boot;
    readonly node_id: string;
    readonly state: string;
    readonly version: string;
    /** For how long its beat has been seen to stand still, ms. */
    readonly still_ms: number;
  }[];
}

export interface Cluster {
  /**
   * Registers this start and beats from then on. Resolves once nothing stands in the store any more as if a process
   * ran it that is gone: at once where the others left properly, else after the few beats in which a dead one is told
   * from a slow one. Rejects where the database is away, or another process has this node's name.
   */
  join(): Promise<void>;
  /** Undefined before it was registered. */
  boot(): Boot | undefined;
  /** Whether nobody can have declared this node dead: its last beat was asked and answered not long ago. */
  isSure(): boolean;
  /** Undefined before it joined. */
  stats(): ClusterStats | undefined;
  /** Tells the others that this node is about to leave. Never rejects: they learn of it by its end at the latest. */
  drain(): Promise<void>;
  /** Ends the beats and buries itself: what it left belongs to the others at once. Never rejects; safe to call twice. */
  leave(): Promise<void>;
}

/** For so much of `lostMs` after its last beat a node can not have been given up. */
const SURE = 0.8;

/** The clock of looks: monotonic. */
const now = (): number => performance.now();

/** A node that has its database to itself is a cluster of one that nobody looks at. */
export const createCluster = (options: ClusterOptions): Cluster =>
  options.table ? createMember(options, options.table) : ALONE;

const ALONE: Cluster = {
  join: async () => {},
  boot: () => undefined,
  isSure: () => true,
  stats: () => undefined,
  drain: async () => {},
  leave: async () => {},
};

function createMember(options: ClusterOptions, table: NodeTable): Cluster {
  const { config, log } = options;
  let state: MembershipState | undefined;
  /** When the last beat that was answered was asked. */
  let beatAtMs = Number.NEGATIVE_INFINITY;
  let timer: NodeJS.Timeout | undefined;
  let beating: Promise<void> | undefined;
  let failing = false;
  let left = false;
  let leaving: Promise<void> | undefined;
  const burying = new Map<Boot, Promise<void>>();
  const joined = Promise.withResolvers<void>();

  function take(message: MembershipMessage): void {
    if (!state || left) return;
    const [next, effects] = membership(state, message);
    state = next;
    for (const effect of effects) carryOut(effect);
  }

  function carryOut(effect: MembershipEffect): void {
    switch (effect.type) {
      case 'bury':
        return bury(effect.boot, effect.seen);
      case 'joined':
        return joined.resolve();
      case 'lost':
        log.warn({ ...named(effect.member), buried_here: effect.buriedHere }, 'a node is gone');
        options.links?.lost(effect.member.boot);
        return options.placement?.lost(effect.member.boot);
      case 'adopted':
        log.info({ messages: effect.count }, 'messages that another node left are sent here');
        return options.onAdopted();
      case 'leaving':
        return options.onLeaving();
      case 'superseded':
        log.error({ boot: state?.boot }, 'this node was declared dead by the others');
        joined.reject(new Error('the other nodes declared this one dead while it started'));
        options.placement?.superseded();
        return options.onSuperseded();
      case 'rivalled':
        return joined.reject(rivalled(effect.rival));
    }
  }

  function bury(boot: Boot, seen: number): void {
    if (burying.has(boot)) return;
    const work = table
      .bury(boot, seen)
      .then(
        (outcome) => take({ type: 'buried', boot, outcome }),
        (error: unknown) => log.warn({ err: error, boot }, 'a node could not be declared dead yet'),
      )
      .finally(() => {
        burying.delete(boot);
        // What it left has nobody now.
        again(0);
      });
    burying.set(boot, work);
  }

  async function beat(): Promise<void> {
    const askedAtMs = now();
    const named = options.links?.named();
    try {
      const look = await table.beat();
      if (failing) log.info({}, 'beats are answered again');
      failing = false;
      beatAtMs = askedAtMs;
      take({ type: 'looked', look, askedAtMs, answeredAtMs: now() });
      if (named && look.mine !== null) options.links?.looked(named, look.members);
      options.placement?.wanted(look.wanted);
    } catch (error) {
      if (!failing && !left) log.warn({ err: error }, 'a beat was not answered');
      failing = true;
    }
    again(Math.max(0, askedAtMs + config.beatMs - now()));
  }

  /** The next beat comes after so many ms, unless one is under way. */
  function again(ms: number): void {
    clearTimeout(timer);
    if (left || state?.phase === 'superseded' || state?.phase === 'rivalled') return;
    timer = setTimeout(() => {
      beating ??= beat().finally(() => {
        beating = undefined;
      });
    }, ms);
  }

  async function leave(): Promise<void> {
    left = true;
    clearTimeout(timer);
    await Promise.all([beating, ...burying.values()]);
    if (!state || state.phase === 'superseded') return;
    await table
      .bury(state.boot, undefined)
      .catch((error: unknown) =>
        log.warn({ err: error }, 'the node could not leave; the others will find it'),
      );
  }

  return {
    async join() {
      const { nodeId, version } = options;
      const boot = await table.register({ nodeId, version });
      state = newMembership(config, boot, nodeId);
      table.onSuperseded(() => take({ type: 'superseded' }));
      log.info({ boot }, 'the node has a boot');
      await options.links?.opened(boot);
      again(0);
      await joined.promise;
    },
    boot: () => state?.boot,
    isSure: () => state?.phase !== 'superseded' && now() - beatAtMs < SURE * config.lostMs,
    stats: () => (state ? statsOf(state) : undefined),
    async drain() {
      if (!state || left || state.phase === 'superseded') return;
      await table
        .drain()
        .catch((error: unknown) =>
          log.warn({ err: error }, 'the others could not be told that this node leaves'),
        );
    },
    leave() {
      leaving ??= leave();
      return leaving;
    },
  };
}

const named = ({ boot, nodeId }: Member): object => ({ boot, lost_node_id: nodeId });

const rivalled = ({ boot, nodeId }: Member): Error =>
  new Error(
    `another process is node ${nodeId} (boot ${boot}) already, and lives; give each node a NODE_ID of its own`,
  );

function statsOf({ boot, phase, mine, lookedAtMs, sightings }: MembershipState): ClusterStats {
  const atMs = now();
  return {
    boot,
    state: phase === 'joined' ? mine : phase,
    beat_age_ms: Math.round(atMs - (lookedAtMs ?? atMs)),
    members: [...sightings.values()].map(({ member, sinceMs }) => ({
      boot: member.boot,
      node_id: member.nodeId,
      state: member.state,
      version: member.version,
      still_ms: Math.round(atMs - sinceMs),
    })),
  };
}
