/** The node's numbers, as Prometheus and the overview show them. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { NodeStats } from '../../src/ports/telemetry.ts';
import { createMetrics, type NodeMetrics } from '../../src/telemetry/metrics.ts';
import { createQuantiles } from '../../src/telemetry/tally.ts';
import { leakFree } from '../support/leaks.ts';

const none = { running: 0, queued: 0 };
const stats: NodeStats = {
  tenants: 2,
  sessions: 5,
  draining: false,
  turns: {
    free: { running: 1, queued: 3 },
    advance: none,
    professional: none,
    enterprise: { running: 2, queued: 0 },
  },
  actors: [
    { kind: 'session', alive: 5, depth: 2, deepest: 9, handled: 100, busyMs: 250 },
    { kind: 'tenant', alive: 2, depth: 1, deepest: 4, handled: 50, busyMs: 0 },
  ],
};
const info = {
  execution_time_ms: 40,
  time_to_first_token_ms: 3,
  iterations: 1,
  tools_used: [],
  tokens_used: 50,
  model: 'offline-echo',
};

function metricsOf(t: TestContext, sources: Partial<Parameters<typeof createMetrics>[0]> = {}): NodeMetrics {
  leakFree(t);
  const metrics = createMetrics({
    stats: () => stats,
    sockets: () => ({ open: 4, byTier: { free: 1, enterprise: 3 } }),
    deliveries: () => ({ webhook: { running: 1, waiting: 2 }, callback: { running: 0, waiting: 4 } }),
    ends: () => ({ waiting: 5, bytes: 600, lost: 7 }),
    cluster: () => undefined,
    ...sources,
  });
  t.after(() => metrics.close());
  return metrics;
}

/** The value of one line of the text format; undefined when there is no such line. */
async function value(metrics: NodeMetrics, series: string): Promise<number | undefined> {
  const { body } = await metrics.text();
  const line = body.split('\n').find((each) => each.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
}

test('an ended turn is counted by tier and outcome, with its tokens and times', async (t) => {
  const metrics = metricsOf(t);
  metrics.turnEnded('free', 'completed', info);
  metrics.turnEnded('free', 'completed', { ...info, time_to_first_token_ms: null });
  metrics.turnEnded('free', 'timeout', undefined);

  assert.equal(await value(metrics, 'nooble_turns_total{tier="free",outcome="completed"}'), 2);
  assert.equal(await value(metrics, 'nooble_turns_total{tier="free",outcome="timeout"}'), 1);
  assert.equal(await value(metrics, 'nooble_tokens_total{tier="free"}'), 100);
  assert.equal(await value(metrics, 'nooble_turn_seconds_count{tier="free"}'), 2);
  assert.equal(await value(metrics, 'nooble_turn_seconds_sum{tier="free"}'), 0.08);
  assert.equal(await value(metrics, 'nooble_turn_seconds_bucket{le="0.025",tier="free"}'), 0);
  assert.equal(await value(metrics, 'nooble_turn_seconds_bucket{le="0.05",tier="free"}'), 2);
  assert.equal(await value(metrics, 'nooble_time_to_first_token_seconds_count{tier="free"}'), 1);
});

test('refusals, crashes, dead letters, tools, retries and closes are counted by their kind', async (t) => {
  const metrics = metricsOf(t);
  metrics.turnRefused('unknown', 'RATE_LIMITED');
  metrics.deadLetter('session');
  metrics.actorCrashed('execution');
  metrics.toolUsed('calculator', true);
  metrics.toolUsed('calculator', false);
  metrics.modelRetried('openai', '429');
  metrics.socketOpened();
  metrics.socketClosed(4408);

  assert.equal(await value(metrics, 'nooble_turn_refusals_total{tier="unknown",code="RATE_LIMITED"}'), 1);
  assert.equal(await value(metrics, 'nooble_dead_letters_total{kind="session"}'), 1);
  assert.equal(await value(metrics, 'nooble_actor_crashes_total{kind="execution"}'), 1);
  assert.equal(await value(metrics, 'nooble_tool_uses_total{tool="calculator",ok="false"}'), 1);
  assert.equal(await value(metrics, 'nooble_model_retries_total{provider="openai",reason="429"}'), 1);
  assert.equal(await value(metrics, 'nooble_sockets_opened_total'), 1);
  assert.equal(await value(metrics, 'nooble_sockets_closed_total{code="4408"}'), 1);
});

test('deliveries are counted by what they carry and how they went, and shown while they wait', async (t) => {
  const metrics = metricsOf(t);
  metrics.deliveryAttempted('webhook', 'retrying');
  metrics.deliveryAttempted('webhook', 'delivered');
  metrics.deliveryAttempted('callback', 'delivered');

  assert.equal(await value(metrics, 'nooble_delivery_attempts_total{kind="webhook",outcome="retrying"}'), 1);
  assert.equal(
    await value(metrics, 'nooble_delivery_attempts_total{kind="callback",outcome="delivered"}'),
    1,
  );
  assert.equal(await value(metrics, 'nooble_deliveries_running{kind="webhook"}'), 1);
  assert.equal(await value(metrics, 'nooble_deliveries_waiting{kind="callback"}'), 4);
  assert.deepEqual(metrics.overview().deliveries, {
    attempts: { retrying: 1, delivered: 2 },
    running: 1,
    waiting: 6,
  });
});

test('gauges show what the node says now, and counters of actors do not grow by being read', async (t) => {
  const metrics = metricsOf(t);
  await metrics.text();

  assert.equal(await value(metrics, 'nooble_executions_running{tier="enterprise"}'), 2);
  assert.equal(await value(metrics, 'nooble_executions_queued{tier="free"}'), 3);
  assert.equal(await value(metrics, 'nooble_sockets'), 4);
  assert.equal(await value(metrics, 'nooble_sockets_by_tier{tier="enterprise"}'), 3);
  assert.equal(await value(metrics, 'nooble_actors{kind="session"}'), 5);
  assert.equal(await value(metrics, 'nooble_mailbox_depth{kind="session"}'), 2);
  assert.equal(await value(metrics, 'nooble_mailbox_deepest{kind="session"}'), 9);
  assert.equal(await value(metrics, 'nooble_mailbox_handled_total{kind="session"}'), 100);
  assert.equal(await value(metrics, 'nooble_mailbox_busy_seconds_total{kind="session"}'), 0.25);
});

test('the actors are asked once a scrape, however many numbers come from them', async (t) => {
  let asked = 0;
  const metrics = metricsOf(t, {
    stats: () => {
      asked += 1;
      return stats;
    },
  });
  await metrics.text();
  await metrics.text();

  assert.equal(asked, 2);
});

test('the event loop and the process are measured, in seconds', async (t) => {
  const metrics = metricsOf(t);
  const { contentType, body } = await metrics.text();

  assert.match(contentType, /^text\/plain; version=0\.0\.4/);
  for (const name of [
    ...['nooble_event_loop_delay_p50_seconds', 'nooble_event_loop_delay_p99_seconds'],
    ...['nooble_event_loop_delay_max_seconds', 'process_resident_memory_bytes', 'process_cpu_seconds_total'],
  ])
    assert.match(body, new RegExp(`^${name} \\d`, 'm'));
});

test('our names carry the prefix and no label could name a tenant, a session or a user', async (t) => {
  const metrics = metricsOf(t);
  metrics.turnEnded('free', 'completed', info);
  metrics.turnRefused('free', 'BUSY');
  const { body } = await metrics.text();
  const labels = new Set([...body.matchAll(/[{,]([a-z_]+)="/g)].map((match) => match[1]));

  for (const label of labels) assert.doesNotMatch(label ?? '', /tenant|session|user|task|agent/);
  for (const [, name] of body.matchAll(/^# TYPE (\S+)/gm))
    assert.match(name ?? '', /^(nooble|process|nodejs)_/);
});

test('label values that models and clients make up cannot fill the memory', async (t) => {
  const metrics = metricsOf(t);
  for (let made = 0; made < 1_000; made += 1) metrics.toolUsed(`invented-${made}`, false);
  metrics.toolUsed('invented-0', false);

  const { body } = await metrics.text();
  assert.ok(body.split('\n').filter((line) => line.startsWith('nooble_tool_uses_total')).length <= 201);
  assert.equal(await value(metrics, 'nooble_tool_uses_total{tool="other",ok="other"}'), 800);
  assert.equal(await value(metrics, 'nooble_tool_uses_total{tool="invented-0",ok="false"}'), 2);
});

test('a label value with quotes and newlines stays one value', async (t) => {
  const metrics = metricsOf(t);
  metrics.toolUsed('a"b\\c\nd', true);
  const { body } = await metrics.text();

  assert.ok(body.includes('nooble_tool_uses_total{tool="a\\"b\\\\c\\nd",ok="true"} 1'));
});

test('the overview sums up, and says null where nothing happened yet', (t) => {
  const metrics = metricsOf(t);
  assert.deepEqual(metrics.overview().turn_time_ms, { p50: null, p99: null });

  for (let turn = 0; turn < 99; turn += 1) metrics.turnEnded('free', 'completed', info);
  metrics.turnEnded('advance', 'failed', { ...info, execution_time_ms: 4_000 });
  metrics.turnRefused('free', 'BUSY');
  const overview = metrics.overview();

  assert.deepEqual(overview.turns, { completed: 99, failed: 1 });
  assert.deepEqual(overview.refused, { BUSY: 1 });
  assert.equal(overview.tokens, 5_000);
  assert.deepEqual(overview.executions, { running: 3, queued: 3 });
  assert.deepEqual(overview.mailbox, { depth: 3, deepest: 9, handled: 150 });
  assert.ok(overview.turn_time_ms.p50 !== null && Math.abs(overview.turn_time_ms.p50 - 40) <= 2);
  assert.equal(overview.sockets.open, 4);
});

test('two nodes in one process count apart', async (t) => {
  const [one, other] = [metricsOf(t), metricsOf(t)];
  one.turnEnded('free', 'completed', info);

  assert.deepEqual(other.overview().turns, {});
});

test('quantiles are within 5 % of the sorted truth', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0.2, max: 300_000, noNaN: true }), { minLength: 1 }), (times) => {
      const quantiles = createQuantiles();
      for (const ms of times) quantiles.observe(ms);
      const sorted = times.toSorted((one, next) => one - next);
      return [0.5, 0.99].every((share) => {
        const truth = sorted[Math.max(1, Math.ceil(share * sorted.length)) - 1] ?? 0;
        const found = quantiles.quantile(share) ?? 0;
        return found >= truth * 0.99 && found <= truth * 1.06;
      });
    }),
  );
});

test('times that make no sense are counted without harm', () => {
  const quantiles = createQuantiles();
  for (const ms of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) quantiles.observe(ms);

  assert.equal(typeof quantiles.quantile(0.5), 'number');
});

test('ends that wait for the store, and those that were lost, are counted', async (t) => {
  const metrics = metricsOf(t);
  assert.equal(await value(metrics, 'nooble_ends_waiting'), 5);
  assert.equal(await value(metrics, 'nooble_ends_waiting_bytes'), 600);
  assert.equal(await value(metrics, 'nooble_ends_lost_total'), 7);
  assert.equal(await value(metrics, 'nooble_ends_lost_total'), 7);
});

test('a client that closes with codes of its own makes no series of its own', async (t) => {
  const metrics = metricsOf(t);
  for (let code = 3_000; code < 4_999; code += 7) metrics.socketClosed(code);
  metrics.socketClosed(1000);
  metrics.socketClosed(4400);
  const series = (await metrics.text()).body.split('\n').filter((line) => /sockets_closed.*code=/.test(line));
  assert.deepEqual(series.length, 3, series.join('\n'));
});

test('the nodes of a database are counted by state, this one among them; alone it is one', async (t) => {
  const alone = metricsOf(t);
  assert.equal(await value(alone, 'nooble_cluster_nodes{state="live"}'), 1);
  assert.equal(await value(alone, 'nooble_cluster_beat_age_seconds'), 0);
  const members = [{ state: 'live' }, { state: 'draining' }];
  const metrics = metricsOf(t, { cluster: () => ({ state: 'live', beat_age_ms: 1500, members }) });
  assert.equal(await value(metrics, 'nooble_cluster_nodes{state="live"}'), 2);
  assert.equal(await value(metrics, 'nooble_cluster_nodes{state="draining"}'), 1);
  assert.equal(await value(metrics, 'nooble_cluster_beat_age_seconds'), 1.5);
});
