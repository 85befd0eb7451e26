/** The clock and the calculator, with its worker. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import { createCalculator } from '../../src/llm/tools/calculator.ts';
import { currentTime } from '../../src/llm/tools/current-time.ts';
import type { Tool } from '../../src/llm/tools/tool.ts';

const ids = {
  tenantId: tenantIdSchema.parse('acme'),
  sessionId: sessionIdSchema.parse('s'),
  taskId: taskIdSchema.parse('t'),
};

function use(
  tool: Tool,
  args: unknown,
  signal = new AbortController().signal,
  tenantId = ids.tenantId,
): Promise<string> {
  const prepared = tool.prepare(args);
  if (!prepared.ok) throw new Error(prepared.problem);
  return prepared.run({ signal, ...ids, tenantId });
}

test('the clock tells UTC, and the wall clock of a zone', async () => {
  const clock = currentTime({ now: () => Date.parse('2026-07-01T10:00:00Z') });
  assert.match(await use(clock, {}), /^2026-07-01T10:00:00\.000Z \(UTC: Wednesday/);
  assert.match(await use(clock, { timezone: 'Europe/Madrid' }), /12:00:00/);
  await assert.rejects(use(clock, { timezone: 'Mars/Base' }), /Unknown time zone "Mars\/Base"/);
  assert.equal(clock.prepare({ zone: 'UTC' }).ok, false);
});

test('a tool is described to the model by a plain JSON schema', async () => {
  const calculator = createCalculator();
  assert.deepEqual(calculator.tool.definition.function.parameters, {
    type: 'object',
    properties: {
      expression: {
        type: 'string',
        minLength: 1,
        maxLength: 1_000,
        description: 'One expression, e.g. "17 * 23", "sqrt(2) / 3", "5 cm to inch".',
      },
    },
    required: ['expression'],
    additionalProperties: false,
  });
  await calculator.close();
});

test('the calculator works out, keeps to arithmetic, and survives what hangs it', async (t) => {
  const calculator = createCalculator({ deadlineMs: 1_000 });
  const work = (expression: string, signal?: AbortSignal) => use(calculator.tool, { expression }, signal);

  await t.test('arithmetic, functions, units', async () => {
    assert.deepEqual(
      await Promise.all(
        ['17 * 23', '0.1 + 0.2', 'sqrt(16) + 2^3', '2 inch to cm', 'mean(1, 2, 6)', '1/0'].map((e) =>
          work(e),
        ),
      ),
      ['391', '0.3', '12', '5.08 cm', '3', 'Infinity'],
    );
  });

  await t.test('anything but an expression is refused', async () => {
    for (const bad of [
      'import({a: 1})',
      'evaluate("1+1")',
      'parse("1")',
      'createUnit("foo")',
      'simplify("x + x")',
      'derivative("x^2", "x")',
      'map([1], parse)',
      'x = 3',
      'f(x) = x',
      '[1,2][1]',
      '"a".constructor',
      '{a: 1}',
      '1; 2',
      'cos.constructor("return process")()',
      'process',
      'constructor',
      'chain(3)',
      'toString()',
      'sum(1:1e9)',
      'ones(100000, 100000)',
      'zeros(1e9)',
      'kron([1], [1])',
      '[[1, 2], [3, 4]]',
      '[([1, 2])]',
      'bignumber(10)^1e9',
      'format(1, 1e9)',
      '2 +',
    ])
      await assert.rejects(work(bad), Error, bad);
    assert.equal(calculator.tool.prepare({ expression: 'x'.repeat(1_001) }).ok, false);
    await assert.rejects(work(`[${'1/7,'.repeat(200)}1]`), /longer than 1000 characters/);
  });

  await t.test('one that takes too long ends with its worker; the next gets a new one', async () => {
    const [hung, waiting] = await Promise.allSettled([work('combinations(1e12, 5e11)'), work('1 + 1')]);
    assert.match(String(hung.status === 'rejected' && hung.reason), /longer than 1 s/);
    assert.deepEqual(waiting, { status: 'fulfilled', value: '2' });
  });

  await t.test('more than the queue holds is refused', async () => {
    const all = await Promise.allSettled(Array.from({ length: 110 }, (_, index) => work(`${index} + 1`)));
    const refused = all.filter(({ status }) => status === 'rejected');
    assert.equal(refused.length, 9); // one runs, a hundred wait
    assert.match(String(refused[0]?.status === 'rejected' && refused[0].reason), /busy/);
  });

  await t.test('an aborted call does not wait', async () => {
    const controller = new AbortController();
    const first = work('2 + 2');
    const second = work('3 + 3', controller.signal);
    controller.abort();
    await assert.rejects(second, /Cancelled/);
    assert.equal(await first, '4');
  });

  await t.test('close refuses what waits and ends the worker', async () => {
    const pending = [work('1 + 1'), work('2 + 2')].map((call) => assert.rejects(call, /closed/));
    await calculator.close();
    await Promise.all(pending);
    await assert.rejects(work('1 + 1'), /closed/);
    assert.ok(!process.getActiveResourcesInfo().includes('MessagePort'));
  });
});

test('expressions that take for ever keep no other tenant waiting', async (t) => {
  const calculator = createCalculator({ deadlineMs: 1_000 });
  t.after(() => calculator.close());
  const by = (tenant: string, expression: string) =>
    use(calculator.tool, { expression }, undefined, tenantIdSchema.parse(tenant));
  let failed = 0;
  const flood = Array.from({ length: 110 }, (_, index) =>
    by('loud', `combinations(${2e12 + index}, 1e12)`).catch(() => {
      failed += 1;
    }),
  );
  assert.equal(await by('quiet', '6 * 7'), '42');
  // Nine that the queue of one tenant does not hold, and no more than ran while a thread was started for the other.
  assert.ok(failed < 40, `${failed} of the flood had their end before`);
  const others = await Promise.all(['a', 'b', 'c'].map((tenant) => by(tenant, '1 + 1')));
  assert.deepEqual(others, ['2', '2', '2']);
  await calculator.close();
  await Promise.all(flood);
});
