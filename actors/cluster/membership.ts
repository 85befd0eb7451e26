/** Which nodes share the database and live: what one node concludes from looking at all their beats. Pure. */
import type { Boot, Burial, Look, Member, NodeState } from '../../src/ports/cluster.ts';

export interface MembershipConfig {
  readonly beatMs: number;
  /** Dead is a node whose beat stands still for so long, and through `LOOKS` looks in a row. */
  readonly lostMs: number;
}

/** Looks in a row through which the beat of a dead node stood still. */
const LOOKS = 3;
/**
 * In beats: an observer whose looks are further apart slept itself, and begins anew. So long must stand still what can
 * be given up before `lostMs`: a node whose connection is gone, or an earlier start under this node's own name.
 */
const PATIENCE = 2.5;

/** Since when a member's beat has been the same, on this node's own clock. Two clocks are never compared. */
export interface Sighting {
  readonly member: Member;
  readonly sinceMs: number;
  readonly looks: number;
  /** How often it was another than in the look before. */
  readonly moves: number;
}

export interface MembershipState {
  readonly config: MembershipConfig;
  readonly boot: Boot;
  readonly nodeId: string;
  /** `joining`: something that an earlier process left may stand as if it ran. */
  readonly phase: 'joining' | 'joined' | 'superseded' | 'rivalled';
  readonly mine: NodeState;
  readonly lookedAtMs: number | undefined;
  readonly sightings: ReadonlyMap<Boot, Sighting>;
}

export type MembershipMessage =
  /** Times in ms on a clock that never goes back: of the question and of its answer. */
  | {
      readonly type: 'looked';
      readonly look: Look;
      readonly askedAtMs: number;
      readonly answeredAtMs: number;
    }
  | { readonly type: 'buried'; readonly boot: Boot; readonly outcome: Burial }
  | { readonly type: 'superseded' };

export type MembershipEffect =
  | { readonly type: 'bury'; readonly boot: Boot; readonly seen: number }
  /** Nothing stands any more as if it ran that does not: the node may begin. */
  | { readonly type: 'joined' }
  /** A node is gone for good; `buriedHere`: by this one. */
  | { readonly type: 'lost'; readonly member: Member; readonly buriedHere: boolean }
  | { readonly type: 'superseded' }
  /** An operator, or this node itself, said that it leaves. Once. */
  | { readonly type: 'leaving' }
  /** Another living process has this node's name. */
  | { readonly type: 'rivalled'; readonly rival: Member }
  /** Messages that nobody had to send are this node's now. */
  | { readonly type: 'adopted'; readonly count: number };

type Step = readonly [MembershipState, readonly MembershipEffect[]];

export const newMembership = (config: MembershipConfig, boot: Boot, nodeId: string): MembershipState => ({
  ...{ config, boot, nodeId, phase: 'joining', mine: 'live' },
  ...{ lookedAtMs: undefined, sightings: new Map() },
});

/** The next state and what is to be done. A node that is superseded does nothing more. */
export function membership(state: MembershipState, message: MembershipMessage): Step {
  if (state.phase === 'superseded' || state.phase === 'rivalled') return [state, []];
  switch (message.type) {
    case 'looked':
      return looked(state, message);
    case 'buried':
      return buried(state, message.boot, message.outcome);
    case 'superseded':
      return [{ ...state, phase: 'superseded' }, [{ type: 'superseded' }]];
  }
}

function looked(
  state: MembershipState,
  { look, askedAtMs, answeredAtMs }: Extract<MembershipMessage, { type: 'looked' }>,
): Step {
  if (look.mine === null) return [{ ...state, phase: 'superseded' }, [{ type: 'superseded' }]];
  const others = look.members.filter(({ boot }) => boot !== state.boot);
  const slept = state.lookedAtMs === undefined || answeredAtMs - state.lookedAtMs > patienceMs(state);
  const sightings = new Map(
    others.map((member) => [member.boot, sighting(slept ? undefined : state, member, answeredAtMs)]),
  );
  const rival =
    state.phase === 'joining' ? [...sightings.values()].find((each) => isRival(state, each)) : undefined;
  if (rival) return [{ ...state, phase: 'rivalled' }, [{ type: 'rivalled', rival: rival.member }]];

  const next = { ...state, mine: look.mine, lookedAtMs: answeredAtMs, sightings };
  const gone = [...state.sightings.values()].filter(({ member }) => !sightings.has(member.boot));
  const dead = [...sightings.values()].filter((each) => isDead(next, each, askedAtMs));
  const effects: readonly MembershipEffect[] = [
    ...gone.map(({ member }) => ({ type: 'lost', member, buriedHere: false }) as const),
    ...dead.map(({ member }) => ({ type: 'bury', boot: member.boot, seen: member.beat }) as const),
    ...(look.adopted > 0 ? [{ type: 'adopted', count: look.adopted } as const] : []),
    ...(look.mine === 'draining' && state.mine !== 'draining' ? [{ type: 'leaving' } as const] : []),
  ];
  return join(next, effects);
}

/** Only where both were looked at in time a beat that is the same says that it stood still. */
function sighting(state: MembershipState | undefined, member: Member, atMs: number): Sighting {
  const before = state?.sightings.get(member.boot);
  if (before?.member.beat === member.beat) return { ...before, member, looks: before.looks + 1 };
  return { member, sinceMs: atMs, looks: 1, moves: before ? before.moves + 1 : 0 };
}

function isDead(state: MembershipState, { member, sinceMs, looks }: Sighting, askedAtMs: number): boolean {
  const stoodMs = askedAtMs - sinceMs;
  const isSuspect = !member.connected || member.nodeId === state.nodeId;
  const { lostMs } = state.config;
  if (isSuspect && looks > 1 && stoodMs >= Math.min(patienceMs(state), lostMs)) return true;
  return looks >= LOOKS && stoodMs >= lostMs;
}

/** Moves of a beat that only a living process makes: the last one of a dead process may come late. */
const RIVAL_MOVES = 2;

/** One that has this node's name, and was seen to live since this node began. */
const isRival = (state: MembershipState, { member, moves }: Sighting): boolean =>
  member.nodeId === state.nodeId && moves >= RIVAL_MOVES;

const patienceMs = ({ config }: MembershipState): number => PATIENCE * config.beatMs;

function buried(state: MembershipState, boot: Boot, outcome: Burial): Step {
  const known = state.sightings.get(boot);
  // Whoever renewed its beat in between lives.
  if (!known || outcome === 'renewed') return [state, []];
  const sightings = new Map(state.sightings);
  sightings.delete(boot);
  const { member } = known;
  return join({ ...state, sightings }, [{ type: 'lost', member, buriedHere: outcome === 'buried' }]);
}

/** A node begins once none of the others may be an earlier process that is gone, or has its own name. */
function join(state: MembershipState, effects: readonly MembershipEffect[]): Step {
  const waits = [...state.sightings.values()].some(
    ({ member }) => !member.connected || member.nodeId === state.nodeId,
  );
  if (state.phase !== 'joining' || state.lookedAtMs === undefined || waits) return [state, effects];
  return [{ ...state, phase: 'joined' }, [...effects, { type: 'joined' }]];
}
