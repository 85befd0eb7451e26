/**
 * An agent: the current configuration of one agent of one tenant, and the older versions that sessions pinned.
 * It decides; agents.ts does. Newer versions win whatever the order in which loads and changes arrive.
 */
import { type AgentConfig, toConfig } from '../../src/domain/agent.ts';
import type { Agent } from '../../src/domain/agent-record.ts';
import { type ErrorData, type Reply, refusal } from '../../src/domain/errors.ts';
import type { AgentId, TenantId } from '../../src/domain/ids.ts';
import { type Behaviour, unreachable } from '../runtime/actor.ts';

/** Which version is meant; null: the newest. */
type Wanted = number | null;

interface Load {
  readonly attempt: number;
  readonly version: Wanted;
  readonly sinceMs: number;
}

interface Asker {
  readonly replyTo: number;
  readonly version: Wanted;
  readonly sinceMs: number;
}

export interface AgentState {
  readonly tenantId: TenantId;
  readonly agentId: AgentId;
  /** Undefined until it is known; null where there is no such agent, or none any more. */
  readonly current: AgentConfig | null | undefined;
  /** The newest version known, deleted ones too; 0 before any. */
  readonly version: number;
  /** Older versions, the one that was loaded last at the end. */
  readonly pins: readonly AgentConfig[];
  readonly loads: readonly Load[];
  readonly attempts: number;
  readonly waiting: readonly Asker[];
}

export type AgentMessage =
  | { readonly type: 'find'; readonly replyTo: number; readonly version: Wanted; readonly atMs: number }
  | { readonly type: 'loaded'; readonly attempt: number; readonly agent: Agent | null; readonly atMs: number }
  /** `error` is the answer to those who wait. */
  | {
      readonly type: 'loadFailed';
      readonly attempt: number;
      readonly error: ErrorData;
      readonly atMs: number;
    }
  /** A new version was stored. */
  | { readonly type: 'changed'; readonly agent: Agent; readonly atMs: number }
  /** Something was stored that this node has not seen. */
  | { readonly type: 'invalidated'; readonly atMs: number }
  | { readonly type: 'idle' };

export type AgentEffect =
  | { readonly type: 'load'; readonly attempt: number; readonly version: Wanted }
  /** From now on this is what askers get without asking. */
  | { readonly type: 'publish'; readonly current: AgentConfig; readonly pins: readonly AgentConfig[] }
  | { readonly type: 'withdraw' }
  /** There is no such agent, and for a while askers get that answer without a load. `version` is the newest known. */
  | { readonly type: 'publishAbsence'; readonly version: number; readonly untilMs: number }
  | { readonly type: 'answer'; readonly replyTo: number; readonly found: Reply<AgentConfig> }
  | { readonly type: 'leave' }
  | { readonly type: 'leaveIfUnused' };

type AgentStep = readonly [AgentState, readonly AgentEffect[]];

/** A load that takes longer is given up, and askers wait no longer; the next `find` begins another. */
export const LOAD_MS = 10_000;
/** For so long an agent that was not found is not looked for again. */
export const ABSENT_MS = 2_000;
/** Older versions one agent holds. */
const MAX_PINS = 8;
/** Askers that wait; agents.ts asks once for many. */
const MAX_WAITING = 1_000;

export const newAgent = (tenantId: TenantId, agentId: AgentId): AgentState => ({
  tenantId,
  agentId,
  current: undefined,
  version: 0,
  pins: [],
  loads: [],
  attempts: 0,
  waiting: [],
});

export const agent: Behaviour<AgentState, AgentMessage, AgentEffect> = (state, message) => {
  switch (message.type) {
    case 'find': {
      if (state.waiting.length >= MAX_WAITING)
        return [state, [answer(message.replyTo, no(refusal('OVERLOADED', { retryAfterMs: 1_000 })))]];
      const { replyTo, version, atMs } = message;
      const waiting = state.waiting.filter((asker) => atMs - asker.sinceMs < LOAD_MS);
      const current = state.current ?? undefined; // what was absent is looked for again
      return settle({ ...state, current, waiting: [...waiting, { replyTo, version, sinceMs: atMs }] }, atMs);
    }
    case 'loaded':
      return loaded(state, message);
    case 'loadFailed':
      return loadFailed(state, message);
    case 'changed':
      if (message.agent.version <= state.version) return [state, []];
      return learn(state, message.agent, message.atMs);
    case 'invalidated': {
      const blank = { ...state, current: undefined, version: 0, pins: [], loads: [] };
      const [next, effects] = settle(blank, message.atMs);
      return [next, [{ type: 'withdraw' }, ...effects]];
    }
    case 'idle':
      return [state, state.waiting.length === 0 ? [{ type: 'leaveIfUnused' }] : []];
    default:
      return unreachable(message);
  }
};

/** The asker whose message crashed the actor gets an answer. */
export const recoverAgent: Behaviour<AgentState, AgentMessage, AgentEffect> = (state, message) => [
  state,
  message.type === 'find' ? [answer(message.replyTo, no(refusal('INTERNAL')))] : [],
];

function loaded(state: AgentState, message: Extract<AgentMessage, { type: 'loaded' }>): AgentStep {
  const load = state.loads.find(({ attempt }) => attempt === message.attempt);
  if (!load) return [state, []]; // given up, or out of date since an invalidation
  const { agent: found, atMs } = message;
  const rest = { ...state, loads: state.loads.filter((other) => other !== load) };
  if (load.version === null) {
    const version = found?.version ?? 0;
    if (state.current !== undefined && version <= state.version) return settle(rest, atMs); // a change was faster
    return learn(rest, version < state.version ? null : found, atMs);
  }
  if (found?.version === load.version)
    return share({ ...rest, pins: [...rest.pins, toConfig(found)].slice(-MAX_PINS) }, atMs);
  const error = refusal('NOT_FOUND', { message: `The agent has no version ${load.version}.` });
  return refuse(rest, ({ version }) => version === load.version, error);
}

function loadFailed(
  state: AgentState,
  { attempt, error }: Extract<AgentMessage, { type: 'loadFailed' }>,
): AgentStep {
  const load = state.loads.find((one) => one.attempt === attempt);
  if (!load) return [state, []];
  const rest = { ...state, loads: state.loads.filter((other) => other !== load) };
  const wanted = ({ version }: Asker): boolean => load.version === null || version === load.version;
  const [next, effects] = refuse(rest, wanted, error);
  return [
    next,
    next.current === undefined && next.waiting.length === 0 ? [...effects, { type: 'leave' }] : effects,
  ];
}

/** Takes over what is stored, where null is nothing. */
function learn(state: AgentState, found: Agent | null, atMs: number): AgentStep {
  const version = found?.version ?? state.version;
  if (found && found.deleted_at === null) return share({ ...state, version, current: toConfig(found) }, atMs);
  const gone: AgentState = { ...state, version, current: null, pins: [] };
  const [next, effects] = refuse(gone, () => true, refusal('AGENT_NOT_FOUND'));
  return [
    next,
    [{ type: 'publishAbsence', version, untilMs: atMs + ABSENT_MS }, ...effects, { type: 'leave' }],
  ];
}

function share(state: AgentState, atMs: number): AgentStep {
  const [next, effects] = settle(state, atMs);
  const { current, pins } = state;
  if (!current) return [next, effects];
  const shown = pins.map((pin) => asPinned(pin, current));
  return [next, [{ type: 'publish', current, pins: shown }, ...effects]];
}

/** Answers those who can be answered, and loads what the others wait for. */
function settle(state: AgentState, atMs: number): AgentStep {
  const effects: AgentEffect[] = [];
  const waiting: Asker[] = [];
  let next = state;
  for (const asker of state.waiting) {
    const found = known(state, asker.version);
    if (found) {
      effects.push(answer(asker.replyTo, { ok: true, value: found }));
      continue;
    }
    waiting.push(asker);
    const [loading, load] = ensureLoad(next, next.current ? asker.version : null, atMs);
    next = loading;
    effects.push(...load);
  }
  return [{ ...next, waiting }, effects];
}

function known({ current, pins }: AgentState, version: Wanted): AgentConfig | null {
  if (!current) return null;
  if (version === null || version === current.version) return current;
  const pin = pins.find((one) => one.version === version);
  return pin ? asPinned(pin, current) : null;
}

/** An agent that is switched off is off in its older versions too. */
const asPinned = (pin: AgentConfig, current: AgentConfig): AgentConfig => ({
  ...pin,
  isActive: current.isActive,
});

function ensureLoad(state: AgentState, version: Wanted, atMs: number): AgentStep {
  const running = state.loads.find((load) => load.version === version);
  if (running && atMs - running.sinceMs < LOAD_MS) return [state, []];
  const attempt = state.attempts + 1;
  const loads = [...state.loads.filter((load) => load !== running), { attempt, version, sinceMs: atMs }];
  return [{ ...state, attempts: attempt, loads }, [{ type: 'load', attempt, version }]];
}

function refuse(state: AgentState, whom: (asker: Asker) => boolean, error: ErrorData): AgentStep {
  const effects = state.waiting.filter(whom).map(({ replyTo }) => answer(replyTo, no(error)));
  return [{ ...state, waiting: state.waiting.filter((asker) => !whom(asker)) }, effects];
}

const answer = (replyTo: number, found: Reply<AgentConfig>): AgentEffect => ({
  type: 'answer',
  replyTo,
  found,
});

const no = (error: ErrorData): Reply<AgentConfig> => ({ ok: false, error });
