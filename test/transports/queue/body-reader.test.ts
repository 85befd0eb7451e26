/** Large bodies are read in a thread that tenants take in turn, and nothing of one tenant on one queue is overtaken. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { pack } from 'msgpackr';
import { queueNameSchema } from '../../../src/domain/queues.ts';
import { createBodyReader } from '../../../transports/queue/body-reader.ts';

const QUEUE = queueNameSchema.parse('execution_service:free:default');
const OTHER = queueNameSchema.parse('execution_service:enterprise:default');

const action = (tenant_id: string, action_id: string, text = '') => ({
  action_id,
  action_type: 'execution.agent_run',
  tenant_id,
  data: { message: text },
});
const LARGE = 'x'.repeat(3_000_000);
const body = (tenant: string, id: string, text = ''): Buffer =>
  Buffer.from(JSON.stringify(action(tenant, id, text)));

/** Reads bodies, and notes in which order that was done. */
function reading(t: TestContext) {
  const bodies = createBodyReader();
  t.after(() => bodies.close());
  const order: string[] = [];
  const read = async (bytes: Uint8Array, queue = QUEUE): Promise<void> => {
    const { action_id: id } = await Promise.resolve(bodies.read(queue, bytes)).then((decoded) =>
      decoded.ok ? decoded.action : assert.fail('it was refused'),
    );
    order.push(id);
  };
  return { order, read };
}

test("one tenant's flood of large bodies holds up another's for no longer than one of them", async (t) => {
  const { order, read } = reading(t);
  const flood = Array.from({ length: 12 }, (_, at) => read(body('loud', `loud-${at}`, LARGE)));
  const quiet = [read(body('quiet', 'quiet-large', LARGE)), read(body('quiet', 'quiet-small'))];
  const other = read(body('third', 'third-small'));
  const same = read(Buffer.from(pack(action('loud', 'loud-small'))));
  await other;
  assert.deepEqual(order, ['third-small'], 'what is small waits for none of another tenant');
  await Promise.all([...flood, ...quiet, same]);
  assert.ok(order.indexOf('quiet-large') <= 3, order.join(' '));
  assert.equal(order.indexOf('quiet-small'), order.indexOf('quiet-large') + 1);
  const loud = order.filter((id) => id.startsWith('loud'));
  assert.deepEqual(loud, [...Array.from({ length: 12 }, (_, at) => `loud-${at}`), 'loud-small']);
});

test('where the first bytes do not say whose a body is, its queue keeps the order', async (t) => {
  const { order, read } = reading(t);
  const { tenant_id, ...rest } = action('acme', 'unknown', LARGE);
  const late = Buffer.from(JSON.stringify({ ...rest, tenant_id }));
  const all = [
    read(body('first', 'first', LARGE)),
    read(late),
    read(body('acme', 'small')),
    read(body('x', 'elsewhere'), OTHER),
  ];
  await Promise.all(all);
  assert.deepEqual(order, ['elsewhere', 'first', 'unknown', 'small']);
});

test('a tenant is known in msgpack, behind a mark, and not by what stands in its data', async (t) => {
  const { order, read } = reading(t);
  const nested = {
    data: { tenant_id: 'other', text: LARGE },
    ...{ action_id: 'nested', action_type: 'execution.agent_run' },
  };
  await Promise.all([
    read(Buffer.from(pack(action('acme', 'packed', LARGE)))),
    read(Buffer.concat([Buffer.from('\ufeff'), body('acme', 'marked', LARGE)])),
    read(Buffer.from(JSON.stringify({ ...nested, tenant_id: 'acme' }))),
    read(body('acme', 'last')),
  ]);
  assert.deepEqual(order, ['packed', 'marked', 'nested', 'last']);
});
