/** The contract of inboxes, and of links over them; the same over memory and Redis. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createLinks, type LinkOutcome, type Links } from '../../../actors/cluster/links.ts';
import type { Bundle, Inboxes, LinkItem } from '../../../src/ports/links.ts';
import { loopTurns, until } from '../../support/until.ts';

export interface InboxesUnderTest {
  /** The view of another node. */
  readonly open: () => Inboxes;
  /** The medium goes away, and comes back with what it had. */
  readonly setAway: (isAway: boolean) => Promise<void>;
}

export const TICK: LinkItem = { kind: 'tick' };
export const bundle = (n: number, ...items: readonly LinkItem[]): Bundle => ({
  from: 1,
  linkId: 'L',
  n,
  items,
});

/** A node on the medium: its links, what it heard, and how often something was missing. */
export async function linked(
  t: TestContext,
  inboxes: Inboxes,
  boot: number,
): Promise<{ links: Links; items: LinkItem[]; torn: () => number }> {
  const items: LinkItem[] = [];
  const timers = new Set<NodeJS.Timeout>();
  let counted = 0;
  const links = createLinks({
    boot,
    push: (to, sent, done) => void inboxes.push(to, sent).then(done, () => done(undefined)),
    after: (ms, act) => void timers.add(setTimeout(act, ms)),
    now: () => performance.now(),
    newLinkId: () => {
      counted += 1;
      return `${boot}-${counted}`;
    },
    onTorn: () => {},
    onItem: (_from, item) => void items.push(item),
    onRequest(_from, { of, body }, answer) {
      if (of !== 'echo') return false;
      answer({ type: 'ok', value: body });
      return true;
    },
  });
  t.after(() => {
    for (const timer of timers) clearTimeout(timer);
  });
  await inboxes.read(boot, links.heard);
  return { links, items, torn: () => links.stats().torn };
}

export const ask = (links: Links, to: number, body: unknown): Promise<LinkOutcome> =>
  new Promise((resolve) => links.ask(to, 'echo', body, resolve));

export function inboxContract(name: string, start: (t: TestContext) => Promise<InboxesUnderTest>): void {
  const over = (what: string, run: (t: TestContext, under: InboxesUnderTest) => Promise<void>): void =>
    void test(`${name}: ${what}`, async (t) => {
      await run(t, await start(t));
    });

  over('bundles come whole, in order, also those that were there first', async (_t, { open }) => {
    const [ours, theirs] = [open(), open()];
    const heard: Bundle[] = [];
    const frames: LinkItem = {
      kind: 'frames',
      to: [
        ['a b', 3],
        ['c', 4],
      ],
      frames: [
        { seq: 7, type: 'chat.delta', atMs: 12.5, taskId: 't', text: '{"x":"\u{1F600}é"}' },
        { seq: undefined, type: 'session.ready', atMs: 0, taskId: undefined, text: '' },
      ],
    };
    const request: LinkItem = {
      kind: 'request',
      id: 9,
      of: 'say',
      body: { said: ['\ud800', null, 1.5, {}] },
    };
    assert.equal(await ours.push(2, bundle(1, frames, request)), 1);
    assert.equal(await ours.push(2, bundle(2, TICK)), 2);
    await theirs.read(2, (each) => heard.push(each));
    await until('both', () => heard.length === 2);
    await ours.push(2, bundle(3, TICK));
    await until('the third', () => heard.length === 3);
    assert.deepEqual(heard, [bundle(1, frames, request), bundle(2, TICK), bundle(3, TICK)]);
  });

  over('a boot reads its own inbox, and after a rebirth the new one alone', async (_t, { open }) => {
    const [ours, theirs] = [open(), open()];
    const heard: string[] = [];
    await theirs.read(2, ({ n }) => heard.push(`2:${n}`));
    await ours.push(2, bundle(1, TICK));
    await until('the first', () => heard.length === 1);
    await theirs.read(3, ({ n }) => heard.push(`3:${n}`));
    await ours.push(2, bundle(2, TICK));
    await ours.push(3, bundle(1, TICK));
    await until('the other', () => heard.includes('3:1'));
    await loopTurns(5);
    assert.deepEqual(heard, ['2:1', '3:1']);
  });

  over('two nodes ask one another, many at once', async (t, { open }) => {
    const [a, b] = [await linked(t, open(), 1), await linked(t, open(), 2)];
    const bodies = Array.from({ length: 500 }, (_, n) => ({ n, text: 'x'.repeat(n) }));
    const answers = await Promise.all([
      ...bodies.map((body) => ask(a.links, 2, body)),
      ...bodies.map((body) => ask(b.links, 1, body)),
    ]);
    assert.deepEqual(
      answers,
      [...bodies, ...bodies].map((value) => ({ type: 'ok', value })),
    );
    assert.deepEqual([a.torn(), b.torn()], [0, 0]);
  });

  over('away: questions are lost at once, and all comes back by itself', async (t, { open, setAway }) => {
    const [a, b] = [await linked(t, open(), 1), await linked(t, open(), 2)];
    assert.equal((await ask(a.links, 2, 1)).type, 'ok');
    await setAway(true);
    await ask(a.links, 2, 2);
    const begunMs = performance.now();
    assert.deepEqual(await ask(a.links, 2, 3), { type: 'lost', why: 'away' });
    assert.ok(performance.now() - begunMs < 50);
    await setAway(false);
    await until('an answer', async () => {
      a.links.tick([2]);
      b.links.tick([1]);
      await new Promise((resolve) => setTimeout(resolve, 20));
      return (await ask(a.links, 2, 4)).type === 'ok';
    });
    assert.ok(b.torn() > 0, 'what was lost is known');
  });

  over('a closed one refuses, and may be closed twice', async (_t, { open }) => {
    const inboxes = open();
    await inboxes.close();
    await inboxes.close();
    await assert.rejects(inboxes.push(2, bundle(1, TICK)), /TRANSPORT_UNAVAILABLE/);
    await assert.rejects(
      inboxes.read(1, () => {}),
      /TRANSPORT_UNAVAILABLE/,
    );
  });
}
