/** What a store on a disk must stand: texts of every kind and length, and very many sessions. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Message } from '../../src/domain/conversation.ts';
import { MAX_MESSAGE_UNITS } from '../../src/domain/frames.ts';
import type { Store } from '../../src/ports/store.ts';
import {
  accept,
  answer,
  answered,
  contents,
  forget,
  message,
  named,
  overEach,
  page,
  taskOf,
  tenantOf,
} from './records.ts';

const SESSIONS = 2_000;
/** Any UTF-16 units: NUL, controls, halves of pairs. */
const anyText = fc
  .array(
    fc.oneof(fc.integer({ min: 0, max: 0xffff }), fc.constantFrom(0, 0x27, 0x5c, 0xd800, 0xdc00, 0xfeff)),
  )
  .map((units) => String.fromCharCode(...units));

/** Runs the sentences over stores that `open` makes; each test opens its own and closes it. */
export function extremeContract(name: string, open: () => Promise<Store>): void {
  const over = overEach(name, open);

  over('any text comes back as it was', async (store) => {
    let turns = 0;
    await fc.assert(
      fc.asyncProperty(anyText, anyText, async (question, reply) => {
        turns += 1;
        const name = named(`t${turns}`, `s${turns}`);
        await accept(store, name, question);
        await answer(store, name, reply);

        assert.deepEqual(contents(await page(store, name)), [question, reply]);
        assert.equal((await store.turn(tenantOf(name), taskOf(name)))?.content, reply);
      }),
      { numRuns: 100 },
    );
  });

  over('reasoning comes back as it was', async (store) => {
    for (const [at, reasoning] of ['', 'It\'s "so".', '\u0000\ud800 \udc00', '😀'.repeat(32_768)].entries()) {
      const name = named(`t${at}`, `s${at}`);
      await accept(store, name);
      await store.commit({
        type: 'turn-ended',
        turn: { ...answered(name, 'say'), reasoning },
        message: undefined,
      });
      assert.equal((await store.turn(tenantOf(name), taskOf(name)))?.reasoning, reasoning);
    }
  });

  over('the text so far of a failed turn is told from an answer', async (store) => {
    for (const [at, text] of ['Half of', '\u0000\ud800'].entries()) {
      const name = named(`t${at}`, `s${at}`);
      await accept(store, name);
      const { info: _, ...turn } = answered(name, text);
      const left: Message = { ...message(name, 'assistant', text), partial: true };
      await store.commit({ type: 'turn-ended', turn: { ...turn, status: 'failed' }, message: left });
      assert.deepEqual((await page(store, name))?.messages.at(-1), left);
      assert.equal((await store.turn(tenantOf(name), taskOf(name)))?.content, text);
    }
  });

  over('messages at the size limit come back whole', async (store) => {
    const texts = [
      '😀'.repeat(MAX_MESSAGE_UNITS / 2),
      '\u0000'.repeat(MAX_MESSAGE_UNITS),
      'ß'.repeat(MAX_MESSAGE_UNITS),
    ];
    for (const [index, text] of texts.entries()) {
      const name = named(`t${index}`, `s${index}`);
      await accept(store, name, text);
      await answer(store, name, text);

      assert.deepEqual(contents(await page(store, name)), [text, text]);
    }
  });

  over('a content that is not the answer, and an empty one, are kept apart', async (store) => {
    for (const [task, content, said] of [
      ['t1', 'partial', undefined],
      ['t2', '', undefined],
      ['t3', undefined, 'said'],
      ['t4', 'one', 'other \ud800'],
    ] as const) {
      const name = named(task, task);
      await accept(store, name);
      const before = await store.turn(tenantOf(name), taskOf(name));
      assert.ok(before);
      const turn = {
        ...before,
        status: 'cancelled' as const,
        finishedAtMs: 5,
        agentVersion: 3,
        ...(content === undefined ? {} : { content }),
      };
      const message =
        said === undefined
          ? undefined
          : { role: 'assistant' as const, content: said, taskId: turn.taskId, atMs: 6 };
      await store.commit({ type: 'turn-ended', turn, message });

      assert.deepEqual(await store.turn(tenantOf(name), taskOf(name)), turn);
      assert.deepEqual(contents(await page(store, name)), [
        `ask ${task}`,
        ...(said === undefined ? [] : [said]),
      ]);
    }
  });

  over('very many sessions expire while other writes go on, and the young ones stay', async (store) => {
    const old = Array.from({ length: SESSIONS }, (_, index) => named(`t${index}`, `s${index}`));
    await Promise.all(old.map((name) => accept(store, name)));
    await answerLate(store, named('t7', 's7'));
    let expired = false;
    const expiry = store
      .commit({ type: 'history-expired', tier: null, beforeMs: 1_700_000_000_500 })
      .then(() => {
        expired = true;
      });
    await accept(store, named('meanwhile', 's1', 'umbrella'));
    assert.equal(expired, false, 'expiry lets other writes in between');
    await expiry;

    assert.deepEqual(contents(await page(store, named('t7', 's7'))), ['ask t7', 'late']);
    for (const name of old.filter((each) => each.task !== 't7').slice(0, 50))
      assert.equal(await page(store, name), null);
    assert.equal(await accept(store, named('t1999', 's1999')), 'stored');
  });

  over('very many sessions of a tenant are deleted one by one', async (store) => {
    const all = Array.from({ length: SESSIONS }, (_, index) => named(`t${index}`, `s${index}`));
    await Promise.all(all.map((name) => accept(store, name)));
    await accept(store, named('t1', 's1', 'umbrella'));
    await Promise.all(all.map((name) => forget(store, name)));

    for (const name of all.slice(0, 50)) assert.equal(await store.turn(tenantOf(name), taskOf(name)), null);
    assert.notEqual(await page(store, named('t1', 's1', 'umbrella')), null);
  });
}

/** An answer that is younger than the age at which the test lets sessions expire. */
async function answerLate(store: Store, name: ReturnType<typeof named>): Promise<void> {
  const turn = await store.turn(tenantOf(name), taskOf(name));
  assert.ok(turn);
  const message = {
    role: 'assistant' as const,
    content: 'late',
    taskId: turn.taskId,
    atMs: 1_700_000_000_500,
  };
  await store.commit({
    type: 'turn-ended',
    turn: { ...turn, status: 'completed', finishedAtMs: 1_700_000_000_500, content: 'late' },
    message,
  });
}
