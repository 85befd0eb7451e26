/** What every archive must do: carry whole conversations out of one store and into another. */
import assert from 'node:assert/strict';
import type { Agent } from '../../src/domain/agent-record.ts';
import { agentIdSchema, sessionIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import type { ArchivedVersion } from '../../src/ports/management.ts';
import type { Stores } from '../../src/store/open.ts';
import { agent, audit } from './agent-contract.ts';
import { accept, answer, contents, named, overEach, page, taskOf } from './records.ts';

const acme = tenantIdSchema.parse('acme');
const umbrella = tenantIdSchema.parse('umbrella');
const s1 = sessionIdSchema.parse('s1');

const id = (name: string) => agentIdSchema.parse(name);
const DELETED = { deleted_at: '2024-05-01T00:00:00.000Z' };

/** An agent's versions, the first of them 1. */
const versionsOf = (name: string, ...changes: readonly Partial<Agent>[]): readonly ArchivedVersion[] =>
  changes.map((change, index) => {
    const version = agent(name, { version: index + 1, ...change });
    return { agent: version, audit: audit(version) };
  });

/** Runs the contract over stores that `open` makes; each test opens its own and closes it. */
export function archiveContract(name: string, open: () => Promise<Stores>): void {
  const over = overEach(name, open);

  over(
    'sessions are listed by id in pages, those of the tenant alone',
    async ({ conversations, archive }) => {
      for (const session of ['s2', 's1', 's3']) await accept(conversations, named(session, session));
      await accept(conversations, named('t9', 's9', 'umbrella'));
      const [first, second] = [
        await archive.sessions(acme, undefined, 2),
        await archive.sessions(acme, s1, 9),
      ];

      assert.deepEqual(first, ['s1', 's2']);
      assert.deepEqual(second, ['s2', 's3']);
    },
  );

  over(
    'what was read is written back as it was, for another tenant too',
    async ({ conversations, archive }) => {
      await accept(conversations, named('t1'), 'nul \u0000');
      await answer(conversations, named('t1'), 'lone \ud800');
      await accept(conversations, named('t2'));
      const read = await archive.turns(acme, s1, undefined, 9);

      assert.deepEqual(await archive.restore(umbrella, read), { stored: 2, skipped: 0 });
      const theirs = await archive.turns(umbrella, s1, undefined, 9);
      assert.deepEqual(
        theirs,
        read.map((each) => ({ ...each, turn: { ...each.turn, tenantId: umbrella } })),
      );
      const restored = await page(conversations, named('t1', 's1', 'umbrella'));
      assert.deepEqual(contents(restored), ['nul \u0000', 'lone \ud800', 'ask t2']);
      assert.deepEqual(await archive.sessions(umbrella, undefined, 9), ['s1']);
    },
  );

  over(
    'turns come in pages, in the order in which they were accepted',
    async ({ conversations, archive }) => {
      for (const task of ['t3', 't1', 't2']) await accept(conversations, named(task));
      const first = await archive.turns(acme, s1, undefined, 2);
      const second = await archive.turns(acme, s1, taskOf(named('t1')), 2);

      assert.deepEqual(
        [...first, ...second].map((each) => each.turn.taskId),
        ['t3', 't1', 't2'],
      );
    },
  );

  over('agents are listed by id in pages, deleted ones too', async ({ agents, archive }) => {
    for (const name of ['a3', 'a1', 'a2'])
      assert.equal(await archive.restoreAgent(acme, versionsOf(name, {}, DELETED)), 'saved');
    await archive.restoreAgent(acme, versionsOf('a4', {}));
    await archive.restoreAgent(umbrella, versionsOf('a9', { tenant_id: umbrella }));

    assert.deepEqual(await archive.agents(acme, undefined, 2), ['a1', 'a2']);
    assert.deepEqual(await archive.agents(acme, id('a2'), 9), ['a3', 'a4']);
    assert.equal((await agents.list(acme, { page: 1, pageSize: 9 })).total, 1);
  });

  over('an agent comes back with all its versions and their audit, or not at all', async (stores) => {
    const { agents, archive } = stores;
    const versions = versionsOf('a1', { name: 'One' }, { name: 'Two' }, DELETED);
    assert.equal(await archive.restoreAgent(acme, versions), 'saved');
    assert.equal(await archive.restoreAgent(acme, versionsOf('a1', { name: 'Other' })), 'there');

    const oldestFirst = [
      ...(await agents.versions(acme, id('a1'), { page: 1, pageSize: 20 })).items,
    ].reverse();
    assert.deepEqual(
      oldestFirst,
      versions.map((each) => each.agent),
    );
    assert.deepEqual(await agents.get(acme, id('a1')), versions.at(-1)?.agent);
    const { items } = await agents.history(acme, id('a1'), { page: 1, pageSize: 9 });
    assert.deepEqual(
      items.toReversed(),
      versions.map((each) => each.audit),
    );
    await assert.rejects(archive.restoreAgent(acme, []), /without versions/);
    const [good] = versionsOf('a2', {});
    assert.ok(good);
    const circle: Record<string, unknown> = {};
    circle.self = circle;
    const unwritable = { ...good.audit, changes: [{ field: 'name', from: circle, to: null }] };
    await assert.rejects(archive.restoreAgent(acme, [{ ...good, audit: unwritable }]), TypeError);
    assert.equal(await agents.get(acme, id('a2')), null);
    assert.equal((await agents.versions(acme, id('a2'), { page: 1, pageSize: 20 })).total, 0);
  });

  over('a slug is asked of live agents alone, by what they are called now', async ({ agents, archive }) => {
    const restore = (name: string, ...changes: readonly Partial<Agent>[]) =>
      archive.restoreAgent(acme, versionsOf(name, ...changes));
    assert.equal(await restore('a1', { slug: 'bot' }), 'saved');
    assert.equal(await restore('a2', { slug: 'bot' }), 'taken');
    assert.equal(await agents.get(acme, id('a2')), null);
    assert.equal(await restore('a2', { slug: 'bot' }, { slug: 'other' }), 'saved');
    assert.equal(await restore('a3', { slug: 'bot' }, { slug: 'bot', ...DELETED }), 'saved');
    assert.equal(await restore('a4', { slug: 'new' }, { slug: 'bot' }), 'taken');

    const { items } = await agents.list(acme, { page: 1, pageSize: 9 });
    assert.deepEqual(items.map(({ slug }) => slug).toSorted(), ['bot', 'other']);
  });

  over('ids that are there already stay as they are and are counted', async ({ conversations, archive }) => {
    await accept(conversations, named('t1'), 'here first');
    const read = await archive.turns(acme, s1, undefined, 9);
    const changed = read.map((each) => ({
      ...each,
      messages: each.messages.map((message) => ({ ...message, content: 'changed' })),
    }));

    assert.deepEqual(await archive.restore(acme, changed), { stored: 0, skipped: 1 });
    assert.deepEqual(contents(await page(conversations, named('t1'))), ['here first']);
  });

  over('thousands of turns are restored at once, or none', async ({ archive, conversations }) => {
    await accept(conversations, named('t1'));
    const [one] = await archive.turns(acme, s1, undefined, 1);
    assert.ok(one);
    const many = Array.from({ length: 1_000 }, (_, index) => {
      const taskId = taskOf(named(`m${index}`));
      return {
        turn: { ...one.turn, taskId },
        messages: one.messages.map((message) => ({ ...message, taskId })),
      };
    });

    await assert.rejects(
      archive.restore(umbrella, [...many, { turn: one.turn, messages: [] }]),
      /no question/,
    );
    assert.deepEqual(await archive.sessions(umbrella, undefined, 9), []);
    assert.deepEqual(await archive.restore(umbrella, many), { stored: 1_000, skipped: 0 });
  });
}
