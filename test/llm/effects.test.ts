/** Tools that do what must not happen twice: that they begin is kept before they do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import { defineTool, type Tool } from '../../src/llm/tools/tool.ts';
import { callTools, say } from '../support/stub-model.ts';
import { answerOf, errorOf, type PlanChange, startBench, typesOf } from './harness.ts';

const call = (name: string, id: string) => ({ id, name, args: '{}' });
const limits = { tools: ['send', 'look'] };

/** One tool with effects and one without; `done` tells in which order things happened. */
function toolsInto(done: string[]): readonly Tool[] {
  const made = (name: string) => ({
    name,
    description: name,
    schema: z.object({}),
    run: async () => {
      done.push(name);
      return name;
    },
  });
  return [defineTool({ ...made('send'), effects: true }), defineTool(made('look'))];
}

function gate() {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open: () => open(), opened };
}

test('only a tool that says so has effects', () => {
  assert.deepEqual(
    toolsInto([]).map(({ name, effects }) => [name, effects]),
    [
      ['send', true],
      ['look', undefined],
    ],
  );
});

for (const type of ['conversational', 'langchain'] as const) {
  const begin = async (done: string[], change: PlanChange) => {
    const bench = await startBench({ tools: toolsInto(done) });
    bench.stub.next(callTools([call('look', 'c1')]), callTools([call('send', 'c2')]), say('Done.'));
    return { bench, run: bench.start({ type, limits, ...change }) };
  };

  test(`${type}: a tool with effects waits until they are kept, one without does not`, async () => {
    const done: string[] = [];
    const { open, opened } = gate();
    const asked = gate();
    const { bench, run } = await begin(done, {
      effects: () => {
        done.push('kept');
        asked.open();
        return opened;
      },
    });
    await using _closed = bench;
    await asked.opened;
    assert.deepEqual(done, ['look', 'kept']);
    assert.equal(typesOf(run.events).filter((name) => name === 'tool.started').length, 1);
    open();
    assert.equal(answerOf(await run.done), 'Done.');
    assert.deepEqual(done, ['look', 'kept', 'send']);
  });

  test(`${type}: effects that can not be kept end the run before they begin`, async () => {
    for (const error of [new Error('canary: away'), new RefusalError(refusal('STORE_UNAVAILABLE'))]) {
      const done: string[] = [];
      const { bench, run } = await begin(done, { effects: () => Promise.reject(error) });
      await using _closed = bench;
      assert.equal(errorOf(await run.done).code, 'STORE_UNAVAILABLE');
      assert.deepEqual(done, ['look']);
    }
  });

  test(`${type}: a run that is cancelled while its effects are being kept does not begin them`, async () => {
    const done: string[] = [];
    const { open, opened } = gate();
    const asked = gate();
    const { bench, run } = await begin(done, {
      effects: () => {
        asked.open();
        return opened;
      },
    });
    await using _closed = bench;
    await asked.opened;
    run.abort();
    open();
    assert.equal((await run.done).type, 'aborted');
    assert.deepEqual(done, ['look']);
  });

  test(`${type}: a turn that is not accepted keeps no effects`, async () => {
    const done: string[] = [];
    const accepted = Promise.reject(new Error('refused'));
    accepted.catch(() => undefined);
    const { bench, run } = await begin(done, {
      accepted,
      effects: () => assert.fail('nothing to keep them with'),
    });
    await using _closed = bench;
    assert.equal(errorOf(await run.done).code, 'STORE_UNAVAILABLE');
    assert.deepEqual(done, []);
  });
}
