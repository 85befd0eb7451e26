/** A node's actors and executions without its edges: over a store in memory, and a runner that the test brings. */
import type { TestContext } from 'node:test';
import { createExecutions, type ExecutionDeps } from '../../actors/executions/executions.ts';
import { createTurnObserver } from '../../actors/executions/turn-observer.ts';
import { createSystem, type System } from '../../actors/system.ts';
import type { TurnRequest } from '../../src/domain/turn.ts';
import type { AgentRunner, ExecutionContext, ExecutionPlan, RunOutcome } from '../../src/ports/runner.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import type { Log, Timers } from '../../src/ports/telemetry.ts';
import { type CallbackDeps, createCallbacks } from '../../transports/webhooks/callbacks.ts';
import {
  AGENT,
  CONFIG,
  type Listener,
  listener,
  SESSION,
  sessionId,
  TENANT,
  tenantId,
  turnRequest,
} from '../actors/fixtures.ts';
import { leakFree } from './leaks.ts';
import { quiet, uncounted } from './quiet.ts';
import { memoryStore, memoryStores } from './stores.ts';

type SystemOptions = Parameters<typeof createSystem>[0];

export type ActorOptions = Partial<SystemOptions> & Pick<SystemOptions, 'runner'>;

/** Actors of professional tenants, whose turns all go to the fixtures' agent. Whoever makes them closes them. */
export const createActors = ({ store = memoryStore(), ...more }: ActorOptions): System =>
  createSystem({
    ...CONFIG,
    store,
    agents: { agent: async () => ({ ok: true, value: AGENT }) },
    clock: { now: () => Date.now() },
    metrics: uncounted,
    log: quiet,
    defaultTier: 'professional',
    maxExecutions: 10,
    deltaWindowMs: 0,
    idleMs: 60_000,
    ...more,
  });

/** They are closed, and leaks looked for, after the test. */
export function openActors(t: TestContext, options: ActorOptions) {
  leakFree(t);
  const system = createActors(options);
  t.after(() => system.close());
  return {
    system,
    /** A request with a task id of its own, by default of `TENANT` in `SESSION`. */
    say: (id: string, more: Partial<TurnRequest> = {}) =>
      system.say(turnRequest(id, { taskIdGiven: true, ...more })),
    attach(id: string, session: string = SESSION, tenant: string = TENANT): Listener {
      const client = listener(id);
      const caller = { tenantId: tenantId(tenant), tier: undefined, userId: undefined };
      system.attach(caller, sessionId(session), client, undefined);
      return client;
    },
  };
}

export interface HandRun {
  readonly plan: ExecutionPlan;
  readonly context: ExecutionContext;
  readonly end: (outcome: RunOutcome) => void;
  readonly break: (error: Error) => void;
}

/** A runner whose runs end when the test says so. */
export function handRunner() {
  const runs: HandRun[] = [];
  const runner: AgentRunner = {
    run: (plan, context) =>
      new Promise((resolve, reject) => {
        runs.push({ plan, context, end: resolve, break: reject });
      }),
    close: async () => {},
  };
  return { runner, runs };
}

export interface ExecutionOptions extends Partial<Omit<ExecutionDeps, 'callbacks' | 'directory'>> {
  readonly clock: { now(): number };
  readonly log?: Log;
  readonly timers?: Timers;
  readonly callbacks?: Partial<CallbackDeps>;
}

/** Executions over a directory, with a turn observer and callbacks of their own. */
export function executionsOver(
  directory: Directory,
  { clock, log = quiet, timers, callbacks, ...more }: ExecutionOptions,
) {
  const { batches, callbacks: stored } = memoryStores();
  const timing = { clock, log, ...(timers ? { timers } : {}), random: () => 1 };
  return createExecutions({
    ...timing,
    directory,
    observer: createTurnObserver({ clock, log, directory }),
    batchStore: batches,
    callbacks: createCallbacks({
      ...timing,
      store: stored,
      meter: uncounted,
      allowInsecure: true,
      blockPrivate: false,
      ...callbacks,
    }),
    atOnce: async () => 10,
    ...more,
  });
}
