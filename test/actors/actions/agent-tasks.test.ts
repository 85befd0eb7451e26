/** Agent management's queues over the in-process transport: who is asked what, what is refused, and what is sent. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createAgentTasks } from '../../../actors/actions/agent-tasks.ts';
import type { AgentTaskMessage } from '../../../src/domain/agent-task.ts';
import { refusal } from '../../../src/domain/errors.ts';
import { managementQueue, tierSubscription } from '../../../src/domain/queues.ts';
import { createNotices } from '../../../src/management/notices.ts';
import type { TaskOrigin, TaskTaker } from '../../../src/ports/management.ts';
import { createMemoryTransport } from '../../../transports/queue/memory.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet } from '../../support/quiet.ts';
import { action, collecting, counting, gate } from '../../support/transport.ts';
import { until } from '../../support/until.ts';
import { notice } from '../../transports/webhooks/webhook-receiver.ts';

const TASKS = managementQueue('tasks', 'acme');

const task = (id: string, tenant_id = 'acme'): AgentTaskMessage => ({
  task_id: id,
  tenant_id,
  type: 'agent_validate',
  payload: { config: { name: 'Guide' } },
});

/** An edge over a taker that keeps what it was asked, as task ids, and answers as `answer` says. */
async function open(t: TestContext, answer: TaskTaker = async () => ({ ok: true, value: {} })) {
  leakFree(t);
  const transport = createMemoryTransport(quiet, counting());
  const notices = createNotices(quiet);
  const asked: string[] = [];
  const origins: TaskOrigin[] = [];
  const givenUp: string[] = [];
  const takeTask: TaskTaker = async (message, origin) => {
    if (origin.givenUp) {
      givenUp.push(
        `${JSON.parse(JSON.stringify(message)).task_id} ${origin.tenantId} ${origin.givenUp.code}`,
      );
      return { ok: false, error: origin.givenUp };
    }
    asked.push(JSON.parse(JSON.stringify(message)).task_id);
    origins.push(origin);
    return answer(message, origin);
  };
  const traced: string[] = [];
  const refusals = {
    refused: (wire: string, { code }: { readonly code: string }, fields: object) => {
      traced.push(`${wire} ${code} ${JSON.stringify(fields)}`);
    },
  };
  const edge = createAgentTasks({ transport, takeTask, notices, log: quiet, refusals });
  t.after(async () => {
    await edge.close();
    await transport.close();
  });
  await edge.start();
  return {
    ...{ transport, notices, asked, origins, edge, givenUp, traced },
    came: (count: number) => until(`${count} tasks`, () => asked.length >= count),
  };
}

test('tasks of any tenant are taken off its three queues, in either format', async (t) => {
  const { transport, asked, origins, came } = await open(t);
  await transport.send(TASKS, task('t1'), 'json');
  await transport.send(managementQueue('validation', 'globex'), task('t2', 'globex'), 'msgpack');
  await transport.send(managementQueue('templates', 'new.tenant'), task('t3', 'new.tenant'), 'json');
  await came(3);

  assert.deepEqual(asked.toSorted(), ['t1', 't2', 't3']);
  assert.deepEqual(origins.map(({ tenantId }) => tenantId).toSorted(), ['acme', 'globex', 'new.tenant']);
});

test('what is malformed, or names another tenant than its queue, is dead at once and asked of nobody', async (t) => {
  const { transport, asked, came, givenUp, traced } = await open(t);
  for (const body of ['{"task_id":', '[]', '{"task_id":"t1","tenant_id":"acme","type":"agent_explode"}'])
    transport.push(TASKS, Buffer.from(body));
  await transport.send(TASKS, action(1), 'json');
  await transport.send(TASKS, task('t2', 'globex'), 'json');
  await transport.send(TASKS, task('t3'), 'json');
  await came(1);
  await until('the dead', async () => (await transport.dead.list(TASKS, 9)).length === 5);

  const letters = await transport.dead.list(TASKS, 9);
  const codes = letters.map(({ error }) => error.code).toSorted();
  assert.deepEqual(codes, ['FORBIDDEN', ...Array(4).fill('INVALID_REQUEST')]);
  assert.ok(letters.some(({ error }) => /type: /.test(error.message)));
  assert.deepEqual(asked, ['t3']);
  const forbidden = traced.filter((each) => each.includes('FORBIDDEN'));
  assert.deepEqual(forbidden, [`redis FORBIDDEN {"queue":"${TASKS}","tenant_id":"acme"}`]);
  assert.deepEqual(givenUp, [], 'nobody is notified of what can not be read, or is another’s');
});

test('a tenant’s tasks are performed one after the other, and hold up no other tenant', async (t) => {
  const door = gate();
  const { transport, asked, came } = await open(t, async (_, { tenantId }) => {
    if (tenantId === 'acme') await door.opened;
    return { ok: true, value: {} };
  });
  await transport.send(TASKS, task('t1'), 'json');
  await transport.send(TASKS, task('t2'), 'json');
  await came(1);
  await transport.send(managementQueue('tasks', 'globex'), task('t3', 'globex'), 'json');
  await came(2);
  assert.deepEqual(asked, ['t1', 't3']);
  door.open();
  await came(3);
  assert.deepEqual(asked, ['t1', 't3', 't2']);
});

test('a refusal for good is an answer; what may go better is tried three times, and then given up', async (t) => {
  const { transport, asked, came, givenUp } = await open(t, async (message) =>
    JSON.stringify(message).includes('"t1"')
      ? { ok: false, error: refusal('TIER_LIMIT') }
      : { ok: false, error: refusal('OVERLOADED', { retryAfterMs: 5 }) },
  );
  await transport.send(TASKS, task('t1'), 'json');
  await transport.send(TASKS, task('t2'), 'json');
  await came(4);
  await until('the dead', async () => (await transport.dead.list(TASKS, 9)).length === 1);

  assert.deepEqual(asked, ['t1', 't2', 't2', 't2']);
  assert.equal((await transport.dead.list(TASKS, 9))[0]?.error.code, 'OVERLOADED');
  assert.deepEqual(givenUp, ['t2 acme OVERLOADED']);
});

test('while the store is away a task is delivered again as often as it takes, and never given up', async (t) => {
  let triesLeft = 9;
  const { transport, asked, came, givenUp } = await open(t, async () => {
    triesLeft -= 1;
    return triesLeft === 0
      ? { ok: true, value: {} }
      : { ok: false, error: refusal('STORE_UNAVAILABLE', { retryAfterMs: 1 }) };
  });
  await transport.send(TASKS, task('t1'), 'json');
  await came(9);

  assert.deepEqual(asked, Array(9).fill('t1'));
  assert.deepEqual([await transport.dead.queues(), givenUp], [[], []]);
});

test('a task that breaks its taker is given up in the end, and its tenant is notified', async (t) => {
  const { transport, asked, givenUp } = await open(t, () => Promise.reject(new Error('a bug')));
  await transport.send(TASKS, task('t1'), 'msgpack');
  await until('the end', () => givenUp.length === 1);

  assert.deepEqual([asked.length, givenUp], [3, ['t1 acme INTERNAL']]);
});

test('every notice is sent to its tenant’s queue, as it is', async (t) => {
  const { transport, notices } = await open(t);
  const queue = managementQueue('notifications', 'globex');
  const heard = collecting();
  await transport.consume([tierSubscription(queue, 'free')], heard.listener, {
    credits: 1,
    read: (raw) => ({ ok: true, idGiven: false, action: action(1, { data: { raw } }) }),
  });
  const sent = [notice('agent_created', 'globex'), notice('task_completed', 'globex')];
  notices.publish(notice('agent_created', 'acme'));
  for (const each of sent) notices.publish(each);
  await heard.heard(2);

  assert.deepEqual(
    heard.deliveries.map(({ action: { data } }) => data.raw),
    sent,
  );
});

test('closing waits for what was taken, leaves the rest, and requeues at once what waits to be tried again', async (t) => {
  const door = gate();
  const { transport, asked, came, edge } = await open(t, async (_, { tenantId }) => {
    if (tenantId === 'acme') await door.opened;
    return { ok: false, error: refusal('OVERLOADED', { retryAfterMs: 60_000 }) };
  });
  await transport.send(TASKS, task('t1'), 'json');
  await transport.send(managementQueue('tasks', 'globex'), task('t2', 'globex'), 'json');
  await came(2);
  let isClosed = false;
  const closing = edge.close().then(() => {
    isClosed = true;
  });
  await transport.send(TASKS, task('t3'), 'json');
  await transport.ping();
  assert.equal(isClosed, false);
  door.open();
  await closing;
  assert.deepEqual(asked, ['t1', 't2']);
});
