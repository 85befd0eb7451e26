/** A node's action worker over real actors, a store in memory, the real relay and the in-process transport; the model is a script. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { createPlaces } from '../../../actors/actions/places.ts';
import { createActionWorker, workSubscriptions } from '../../../actors/actions/worker.ts';
import { replyId } from '../../../src/domain/derived-ids.ts';
import type { DomainAction } from '../../../src/domain/domain-action.ts';
import { errorCodeSchema, RefusalError, refusal } from '../../../src/domain/errors.ts';
import { type TaskId, taskIdSchema, tenantIdSchema } from '../../../src/domain/ids.ts';
import { TIER_TABLE, type TierTable } from '../../../src/domain/tiers.ts';
import { createRelay } from '../../../src/outbox/relay.ts';
import type { PeerRequest, Peers } from '../../../src/ports/peers.ts';
import type { AgentRunner, ExecutionPlan, RunOutcome } from '../../../src/ports/runner.ts';
import type { Directory } from '../../../src/ports/sessions.ts';
import type { Store } from '../../../src/ports/store.ts';
import type { Transport } from '../../../src/ports/transport.ts';
import { createMemoryTransport } from '../../../transports/queue/memory.ts';
import { QUICK } from '../../outbox/relay-fixtures.ts';
import { createActors, executionsOver } from '../../support/actors.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet } from '../../support/quiet.ts';
import { memoryStore, storeBehind } from '../../support/stores.ts';
import { type Collected, collecting, counting, gate, queue } from '../../support/transport.ts';
import { until } from '../../support/until.ts';
import { AGENT, failed, type Listener, listener, ranTo, sessionId } from '../fixtures.ts';

export const WORK = queue('execution_service:professional:default');
export const BACK = queue('caller:replies');
export const ACME = tenantIdSchema.parse('acme');
/** The `action_id` of a reply to one of acme's actions. */
export const idOf = (actionId: string, name: string): string => replyId(ACME, actionId, name);

/** Faults that a test switches on and off while its node runs. */
export interface Weather {
  store: 'up' | 'down' | 'no ends';
  transport: 'up' | 'down';
}

export interface ActionNodeOptions {
  readonly tiers?: TierTable;
  readonly peers?: Partial<Peers>;
  readonly places?: number;
  readonly directory?: Partial<Directory>;
  /** What an earlier node left. */
  readonly store?: Store;
  readonly transport?: Transport;
  /** Puts a body on a queue, where that is not the in-process transport. */
  readonly put?: (name: string, text: string) => void;
  readonly start?: boolean;
}

/**
 * What a message makes the model do: `wait` waits for the gate or an abort, `fail:CODE` fails, `effects` is an operation that
 * may not happen twice and then waits; anything else is answered.
 */
function scriptedRunner() {
  const plans: ExecutionPlan[] = [];
  let operations = 0;
  const { opened, open } = gate();
  const runner: AgentRunner = {
    async run(plan, context): Promise<RunOutcome> {
      plans.push(plan);
      const text = plan.history.at(-1)?.content ?? '';
      const code = errorCodeSchema.safeParse(text.replace('fail:', '')).data;
      if (code) return failed(refusal(code, { retryAfterMs: 7 }));
      if (text === 'effects') {
        await context.effects();
        operations += 1;
      }
      if (text === 'wait' || text === 'effects') {
        context.emit({ type: 'chat.delta', data: { content: 'so far' } });
        const gone = new Promise<void>((resolve) =>
          context.signal.addEventListener('abort', () => resolve()),
        );
        await Promise.race([opened, gone]);
      }
      return ranTo(`echo: ${text}`);
    },
    close: async () => {},
  };
  const ran = (count: number) => until(`${count} runs`, () => plans.length >= count);
  return { runner, plans, operations: () => operations, open, ran };
}

export async function openActionNode(t: TestContext, options: ActionNodeOptions = {}) {
  if (!options.store) leakFree(t);
  const weather: Weather = { store: 'up', transport: 'up' };
  const stored = options.store ?? memoryStore();
  const reads: string[] = [];
  const store = storeBehind(stored, (call, write) => {
    if (call === 'unsent' || call === 'ping') return;
    reads.push(call);
    const ends = write?.type === 'turn-ended' || write?.type === 'outgoing';
    if (weather.store === 'down' || (weather.store === 'no ends' && ends))
      throw new RefusalError(refusal('STORE_UNAVAILABLE', { retryAfterMs: 5 }));
  });
  const own = createMemoryTransport(quiet, counting());
  const inner = options.transport ?? own;
  const put = options.put ?? ((name: string, text: string) => own.push(queue(name), Buffer.from(text)));
  const replied: DomainAction[] = [];
  const transport: Transport = {
    ...inner,
    async send(name, message, format) {
      if (weather.transport === 'down') throw new RefusalError(refusal('TRANSPORT_UNAVAILABLE'));
      return inner.send(name, message, format);
    },
    replied(action) {
      replied.push(action);
      return false;
    },
  };
  const script = scriptedRunner();
  const clock = { now: () => Date.UTC(2026, 0, 1) };
  const tiers = options.tiers ?? TIER_TABLE;
  const relay = createRelay({ store, transport, log: quiet, timing: QUICK, now: clock.now });
  const agents = ['default', 'a1'];
  const system = createActors({
    ...{ store: relay.store, runner: script.runner, clock, tiers, maxExecutions: 100 },
    agents: {
      agent: async (_, id) =>
        agents.includes(id)
          ? { ok: true, value: { ...AGENT, id } }
          : { ok: false, error: refusal('AGENT_NOT_FOUND') },
    },
  });
  const executions = executionsOver(system, {
    ...{ clock, random: () => 0, atOnce: async () => 4 },
    callbacks: { allowInsecure: false, blockPrivate: true },
  });
  const asked: PeerRequest[] = [];
  const peers: Peers = {
    modes: {
      management: 'embedded',
      conversation: 'embedded',
      embedding: 'embedded',
      query: 'embedded',
      tool_registry: 'embedded',
    },
    ask: async () => ({}),
    ...options.peers,
  };
  const invalidated: string[] = [];
  let ids = 0;
  const subscriptions = workSubscriptions(
    [queue('execution:ctx-1:free'), queue('old:work')],
    'professional',
    tiers,
  );
  const worker = createActionWorker({
    transport,
    relay,
    directory: { ...system, ...options.directory },
    executions,
    peers: {
      ...peers,
      ask: (request) => {
        asked.push(request);
        return peers.ask(request);
      },
    },
    invalidateAgent: (tenantId, agentId) => void invalidated.push(`${tenantId}/${agentId}`),
    clock,
    log: quiet,
    refusals: { refused: () => {} },
    subscriptions,
    places: createPlaces({
      ...{ size: options.places ?? 16, subscriptions, tiers, clock, log: quiet },
      atOnce: executions.atOnce,
    }),
    newId: () => {
      ids += 1;
      return `made-${ids}`;
    },
  });
  const back = collecting();
  const readers = new Map<string, Collected>([[BACK, back]]);
  /** Reads a queue of replies. */
  async function read(name: string): Promise<Collected> {
    const heard = readers.get(name) ?? collecting();
    readers.set(name, heard);
    const lane = { queue: queue(name), group: name, weight: 1, share: 1 };
    await inner.consume([lane], heard.listener, { credits: 16 });
    return heard;
  }
  let over = false;
  /** As main closes a node at once: turns that run end as INTERRUPTED. */
  async function close(): Promise<void> {
    if (over) return;
    over = true;
    await worker.close();
    await executions.close();
    await system.close();
    await relay.close();
  }
  /** As a killed process leaves things, and the next one finds them: the ends of turns were not stored. */
  async function die(): Promise<void> {
    weather.store = 'no ends';
    await close();
    await stored.commit({ type: 'unfinished-interrupted', atMs: clock.now() });
  }
  t.after(async () => {
    script.open();
    await close();
    await inner.close();
    await own.close();
  });
  await read(BACK);
  relay.start();
  if (options.start !== false) await worker.start();

  return {
    ...{ worker, system, relay, store: stored, transport: inner, weather, reads, script, asked, invalidated },
    ...{ replied, agents, read, close, die },
    /** Puts a body on the work queue as a stranger would; without an `action_id` where it is null. */
    push(body: object | string, name = WORK): void {
      const text = typeof body === 'string' ? body : JSON.stringify(body);
      put(name, text);
    },
    replies: (): readonly DomainAction[] => back.deliveries.map(({ action }) => action),
    formats: (): readonly string[] => back.deliveries.map(({ format }) => format),
    /** Resolves to the reply of that number, from 0. */
    async reply(at = 0): Promise<DomainAction> {
      await back.heard(at + 1);
      const action = back.deliveries[at]?.action;
      assert.ok(action);
      return action;
    },
    /** Resolves once nothing that was pushed is open: a last action has been answered behind it. */
    async settled(): Promise<void> {
      const heard = await read('caller:last');
      const before = heard.deliveries.length;
      this.push({
        ...envelope('chat.status', `last-${before}`),
        task_id: 'none',
        callback_queue: 'caller:last',
      });
      await heard.heard(before + 1);
    },
    async dead(count: number, name = WORK) {
      await until('the dead', async () => (await inner.dead.list(name, 99)).length >= count);
      const letters = await inner.dead.list(name, 99);
      assert.equal(letters.length, count);
      return letters;
    },
    /** Attaches a client, and resolves once it is in. */
    async watch(session: string, tenant = 'acme'): Promise<Listener> {
      const client = listener(`${tenant}-${session}-${Math.random()}`);
      const caller = { tenantId: tenantIdSchema.parse(tenant), tier: undefined, userId: undefined };
      system.attach(caller, sessionId(session), client, undefined);
      await until('the session', () => client.frames.some(({ type }) => type === 'session.ready'));
      return client;
    },
  };
}

export const envelope = (action_type: string, action_id: string) => ({
  action_id,
  action_type,
  tenant_id: 'acme',
  timestamp: '2026-01-02T03:04:05.678Z',
});

/** An execution whose reply is awaited. */
export const run = (id: string, input: string, more: object = {}, data: object = {}) => ({
  ...envelope('execution.agent_run', id),
  callback_queue: BACK,
  data: { input, ...data },
  ...more,
});

export const task = (id: string): TaskId => taskIdSchema.parse(id);
