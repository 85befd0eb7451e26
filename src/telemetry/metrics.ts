/** The node's numbers: counted where things happen, read from the actors when Prometheus or a console asks. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { isKnownClose } from '../domain/errors.ts';
import { TIERS } from '../domain/tiers.ts';
import type {
  ActorKindStats,
  AgentStats,
  DeliveryKind,
  DeliveryMeter,
  DeliveryStats,
  EndStats,
  Metrics,
  NodeStats,
} from '../ports/telemetry.ts';
import type { TransportMeter } from '../ports/transport.ts';
import { type ClusterCounts, registerCluster } from './cluster-metrics.ts';
import { createLoopDelay, type LoopDelay } from './loop-delay.ts';
import { createQuantiles, createTally } from './tally.ts';

const FIRST_TOKEN_BUCKETS_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const TURN_BUCKETS_S = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

interface SocketCounts {
  readonly open: number;
  readonly byTier?: Readonly<Record<string, number>>;
}

/** What only others know; asked at scrape time, never on the message path. */
interface MetricSources {
  stats(): NodeStats;
  sockets(): SocketCounts;
  deliveries(): Readonly<Record<DeliveryKind, DeliveryStats>>;
  ends(): EndStats;
  /** Of the nodes that share the database; undefined where one has it to itself. */
  cluster(): ClusterCounts | undefined;
}

interface Percentiles {
  readonly p50: number | null;
  readonly p99: number | null;
}

/** The node at a glance. Times in ms; quantiles since the start of the node, loop delay since the last scrape. */
interface Overview {
  readonly uptime_s: number;
  readonly turns: Readonly<Record<string, number>>;
  readonly refused: Readonly<Record<string, number>>;
  /** Requests refused for lack of a right, or for their rate, by code. */
  readonly requests_refused: Readonly<Record<string, number>>;
  readonly tokens: number;
  readonly time_to_first_token_ms: Percentiles;
  readonly turn_time_ms: Percentiles;
  readonly executions: { readonly running: number; readonly queued: number };
  readonly tenants: number;
  readonly sessions: number;
  readonly sockets: { readonly open: number; readonly opened: number; readonly closed: number };
  readonly mailbox: { readonly depth: number; readonly deepest: number; readonly handled: number };
  readonly dead_letters: number;
  readonly crashes: number;
  readonly model_retries: number;
  /** Attempts to deliver webhooks and callbacks, by how they went, and what this node holds in memory. */
  readonly deliveries: DeliveryStats & { readonly attempts: Readonly<Record<string, number>> };
  readonly event_loop_delay_ms: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly memory_rss_bytes: number;
  readonly draining: boolean;
}

export interface NodeMetrics extends Metrics, TransportMeter, DeliveryMeter {
  /** A request that lacked a right, or was one too many, on a wire. */
  requestRefused(wire: string, code: string): void;
  /** Prometheus' text format. Ends the window of the event loop delay. */
  text(): Promise<{ readonly contentType: string; readonly body: string }>;
  overview(): Overview;
  /** Stops the event loop monitor. Counting goes on. */
  close(): void;
}

/** Makes the metrics of one node, in a registry of their own. No label names a tenant, a session or a user. */
export function createMetrics(sources: MetricSources): NodeMetrics {
  const registry = new Registry();
  const delay = createLoopDelay();
  const counts = counters(registry);
  const times = durations(registry);
  const startedAtMs = performance.now();
  const scraped = onceAScrape(sources);
  registerNode(registry, scraped);
  registerActors(registry, scraped);
  registerDeliveries(registry, scraped);
  registerEnds(registry, scraped);
  registerCluster(registry, scraped.cluster);
  registerDelay(registry, delay);
  let withProcess = false;

  return {
    turnEnded: (tier, outcome, info) => {
      counts.turns.add(1, tier, outcome);
      if (!info) return;
      counts.tokens.add(info.tokens_used, tier);
      times.turn(tier, info.execution_time_ms);
      if (info.time_to_first_token_ms !== null) times.firstToken(tier, info.time_to_first_token_ms);
    },
    turnRefused: (tier, code) => counts.refusals.add(1, tier, code),
    requestRefused: (wire, code) => counts.requests.add(1, wire, code),
    deadLetter: (kind) => counts.deadLetters.add(1, kind),
    actorCrashed: (kind) => counts.crashes.add(1, kind),
    toolUsed: (tool, ok) => counts.tools.add(1, tool, String(ok)),
    modelRetried: (provider, reason) => counts.retries.add(1, provider, reason),
    deliveryAttempted: (kind, outcome) => counts.deliveries.add(1, kind, outcome),
    counted: (event, count) => counts.transport.add(count, event),
    socketOpened: () => counts.opened.add(1),
    socketClosed: (code) => counts.closed.add(1, isKnownClose(code) ? String(code) : 'other'),
    text: async () => {
      /** With the first scrape: prom-client's observer of garbage collection cannot be removed again. */
      if (!withProcess) collectDefaultMetrics({ register: registry });
      withProcess = true;
      scraped.renew();
      const body = await registry.metrics();
      delay.reset();
      return { contentType: registry.contentType, body };
    },
    overview: () => overviewOf({ sources, counts, times, delay, startedAtMs }),
    close: () => delay.close(),
  };
}

function overviewOf(of: {
  readonly sources: MetricSources;
  readonly counts: ReturnType<typeof counters>;
  readonly times: ReturnType<typeof durations>;
  readonly delay: LoopDelay;
  readonly startedAtMs: number;
}): Overview {
  const { sources, counts, times } = of;
  const stats = sources.stats();
  return {
    uptime_s: Math.round((performance.now() - of.startedAtMs) / 1000),
    turns: counts.turns.by(1),
    refused: counts.refusals.by(1),
    requests_refused: counts.requests.by(1),
    tokens: counts.tokens.sum(),
    time_to_first_token_ms: times.firstTokenQuantiles(),
    turn_time_ms: times.turnQuantiles(),
    executions: totals(stats),
    tenants: stats.tenants,
    sessions: stats.sessions,
    sockets: { open: sources.sockets().open, opened: counts.opened.sum(), closed: counts.closed.sum() },
    mailbox: mailboxes(stats.actors),
    dead_letters: counts.deadLetters.sum(),
    crashes: counts.crashes.sum(),
    model_retries: counts.retries.sum(),
    deliveries: { attempts: counts.deliveries.by(1), ...inMemory(sources.deliveries()) },
    event_loop_delay_ms: of.delay.now(),
    memory_rss_bytes: process.memoryUsage.rss(),
    draining: stats.draining,
  };
}

/** Many gauges read from the same snapshot: walking all actors is done once a scrape. */
function onceAScrape(sources: MetricSources): MetricSources & { renew(): void } {
  let stats: NodeStats | undefined;
  let sockets: SocketCounts | undefined;
  return {
    deliveries: () => sources.deliveries(),
    ends: () => sources.ends(),
    cluster: () => sources.cluster(),
    stats: () => {
      stats ??= sources.stats();
      return stats;
    },
    sockets: () => {
      sockets ??= sources.sockets();
      return sockets;
    },
    renew: () => {
      stats = undefined;
      sockets = undefined;
    },
  };
}

function counters(registry: Registry) {
  const tally = (name: string, help: string, ...labels: readonly string[]) =>
    createTally(registry, `nooble_${name}_total`, help, labels);
  return {
    turns: tally('turns', 'Turns that ended, by tier and outcome', 'tier', 'outcome'),
    refusals: tally('turn_refusals', 'Turns that were refused, by tier and error code', 'tier', 'code'),
    tokens: tally('tokens', 'Tokens used by turns, as the provider counts them', 'tier'),
    deadLetters: tally('dead_letters', 'Messages to actors that were gone', 'kind'),
    crashes: tally('actor_crashes', 'Actors that failed while handling a message', 'kind'),
    tools: tally('tool_uses', 'Tool calls that ended', 'tool', 'ok'),
    retries: tally('model_retries', 'Model requests that were made again', 'provider', 'reason'),
    deliveries: tally(
      'delivery_attempts',
      'Attempts to deliver webhooks and callbacks, by how they went; lost: none could be made',
      'kind',
      'outcome',
    ),
    transport: tally('transport_events', 'What the transport of actions counts', 'event'),
    requests: tally(
      'requests_refused',
      'Requests refused for lack of a right, or for their rate',
      'wire',
      'code',
    ),
    opened: tally('sockets_opened', 'WebSockets opened'),
    closed: tally('sockets_closed', 'WebSockets closed, by close code', 'code'),
  };
}

/** Histograms for Prometheus (0.3 µs an observation, twice a turn) and quantiles for the overview. */
function durations(registry: Registry) {
  const histogram = (name: string, help: string, buckets: number[]) => {
    const metric = new Histogram({ name, help, buckets, labelNames: ['tier'], registers: [registry] });
    const tiers = new Map<string, { observe(seconds: number): void }>();
    for (const tier of TIERS) tiers.set(tier, metric.labels(tier));
    const all = createQuantiles();
    return {
      observe: (tier: string, ms: number): void => {
        tiers.get(tier)?.observe(ms / 1000);
        all.observe(ms);
      },
      quantiles: (): Percentiles => ({ p50: all.quantile(0.5), p99: all.quantile(0.99) }),
    };
  };
  const turn = histogram(
    'nooble_turn_seconds',
    'Time from the start of an execution to its end',
    TURN_BUCKETS_S,
  );
  const firstToken = histogram(
    'nooble_time_to_first_token_seconds',
    'Time from the start of an execution to its first text',
    FIRST_TOKEN_BUCKETS_S,
  );
  return {
    turn: turn.observe,
    firstToken: firstToken.observe,
    turnQuantiles: turn.quantiles,
    firstTokenQuantiles: firstToken.quantiles,
  };
}

function registerNode(registry: Registry, sources: MetricSources): void {
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  };
  const byTier = (name: string, help: string, read: () => Readonly<Record<string, number>>): void => {
    new Gauge({
      name,
      help,
      labelNames: ['tier'],
      registers: [registry],
      collect() {
        for (const [tier, value] of Object.entries(read())) this.set({ tier }, value);
      },
    });
  };
  const turns = (which: 'running' | 'queued') => () =>
    Object.fromEntries(Object.entries(sources.stats().turns).map(([tier, count]) => [tier, count[which]]));
  byTier('nooble_executions_running', 'Turns that run now', turns('running'));
  byTier('nooble_executions_queued', 'Turns that wait now', turns('queued'));
  const agents = (which: keyof AgentStats) => () => sources.stats().agents?.[which] ?? 0;
  gauge('nooble_agents_live', 'Agents whose configuration is in memory', agents('live'));
  gauge('nooble_agent_lookups_hit', 'Agent configurations found in memory', agents('hits'));
  gauge('nooble_agent_lookups_missed', 'Agent configurations that had to be loaded', agents('misses'));
  gauge('nooble_sockets', 'WebSockets open now', () => sources.sockets().open);
  byTier(
    'nooble_sockets_by_tier',
    'WebSockets open now, by tier of their tenant',
    () => sources.sockets().byTier ?? {},
  );
  gauge('nooble_tenants', 'Tenants in memory', () => sources.stats().tenants);
  gauge('nooble_sessions', 'Sessions in memory', () => sources.stats().sessions);
  gauge('nooble_draining', '1 while the node shuts down', () => (sources.stats().draining ? 1 : 0));
}

function registerActors(registry: Registry, sources: MetricSources): void {
  const perKind = (
    make: typeof Gauge | typeof Counter,
    name: string,
    help: string,
    read: (kind: ActorKindStats) => number,
  ): void => {
    new make({
      name: `nooble_${name}`,
      help,
      labelNames: ['kind'],
      registers: [registry],
      collect() {
        this.reset();
        for (const kind of sources.stats().actors) this.inc({ kind: kind.kind }, read(kind));
      },
    });
  };
  perKind(Gauge, 'actors', 'Actors alive, by kind', (kind) => kind.alive);
  perKind(Gauge, 'mailbox_depth', 'Messages that wait, by kind of actor', (kind) => kind.depth);
  perKind(Gauge, 'mailbox_deepest', 'Fullest mailbox there has been', (kind) => kind.deepest);
  perKind(Counter, 'mailbox_handled_total', 'Messages handled', (kind) => kind.handled);
  perKind(Counter, 'mailbox_busy_seconds_total', 'Time spent handling', (kind) => kind.busyMs / 1000);
}

function registerDeliveries(registry: Registry, sources: MetricSources): void {
  for (const which of ['running', 'waiting'] as const)
    new Gauge({
      name: `nooble_deliveries_${which}`,
      help: `Webhooks and callbacks in memory, ${which}; webhooks between two attempts wait in the store`,
      labelNames: ['kind'],
      registers: [registry],
      collect() {
        for (const [kind, stats] of Object.entries(sources.deliveries())) this.set({ kind }, stats[which]);
      },
    });
}

function registerEnds(registry: Registry, sources: MetricSources): void {
  const register = (make: typeof Gauge | typeof Counter, name: string, help: string, which: keyof EndStats) =>
    new make({
      name: `nooble_${name}`,
      help,
      registers: [registry],
      collect() {
        this.reset();
        this.inc(sources.ends()[which]);
      },
    });
  register(Gauge, 'ends_waiting', 'Ends of turns that wait for a store which is out', 'waiting');
  register(Gauge, 'ends_waiting_bytes', 'What those hold, roughly', 'bytes');
  register(
    Counter,
    'ends_lost_total',
    'Ends of turns that could not be stored, nor kept until they can',
    'lost',
  );
}

function registerDelay(registry: Registry, delay: LoopDelay): void {
  for (const which of ['p50', 'p99', 'max'] as const)
    new Gauge({
      name: `nooble_event_loop_delay_${which}_seconds`,
      help: `Event loop delay since the last scrape, ${which}`,
      registers: [registry],
      collect() {
        this.set(delay.now()[which] / 1000);
      },
    });
}

function totals(stats: NodeStats): { running: number; queued: number } {
  let running = 0;
  let queued = 0;
  for (const tier of TIERS) {
    running += stats.turns[tier].running;
    queued += stats.turns[tier].queued;
  }
  return { running, queued };
}

const inMemory = ({ webhook, callback }: Readonly<Record<DeliveryKind, DeliveryStats>>): DeliveryStats => ({
  running: webhook.running + callback.running,
  waiting: webhook.waiting + callback.waiting,
});

function mailboxes(kinds: readonly ActorKindStats[]): { depth: number; deepest: number; handled: number } {
  let depth = 0;
  let deepest = 0;
  let handled = 0;
  for (const kind of kinds) {
    depth += kind.depth;
    handled += kind.handled;
    deepest = Math.max(deepest, kind.deepest);
  }
  return { depth, deepest, handled };
}
