/** Actions that are one too many: counted and found in the log, as requests of every wire are, but not line by line. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { action, actionScene, ownList, pydantic2, workOf } from '../support/action-client.ts';
import { say } from '../support/stub-model.ts';
import { until } from '../support/until.ts';

/** Of a free tenant in a minute. */
const ALLOWED = 10;
const LINES = 10;

test('refused actions leave a trace in log and metrics, a bounded one', async (t) => {
  const { client, stub, lines, ask } = await actionScene(t);
  stub.byDefault(() => say('Done.'));
  const list = ownList();
  const count = ALLOWED + LINES + 5;
  const runs = Array.from({ length: count }, (_, n) =>
    pydantic2(
      action(
        n % 2 === 0 ? 'execution.agent_run' : 'chat.process',
        { message: 'A secret.' },
        { tenant_tier: 'free', callback_queue: list, trace_id: `trace-${n}` },
      ),
    ),
  );
  await client.push(workOf('free'), ...runs);
  const codes = (await client.replies(list, count)).map(({ data }) => data.error_code);
  assert.equal(codes.filter((code) => code === 'RATE_LIMITED').length, count - ALLOWED);
  const traced = lines.filter(({ msg, wire }) => msg === 'request refused' && wire === 'redis');
  assert.equal(traced.length, LINES);
  for (const line of traced) {
    assert.deepEqual([line.level, line.code, line.tenant_id], ['warn', 'RATE_LIMITED', 'acme']);
    assert.match(String(line.request_id), /^trace-\d+$/);
    assert.doesNotMatch(JSON.stringify(line), /secret/);
  }
  await until('all are counted', async () => {
    const { text } = await ask('/metrics');
    return new RegExp(`refused_total\\{.*redis.*RATE_LIMITED.*\\} ${count - ALLOWED}$`, 'm').test(text);
  });
});
