/** What was acknowledged outlives kill -9, at any moment. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Store } from '../../src/ports/store.ts';
import { openStores } from '../../src/store/open.ts';
import { quiet } from '../support/quiet.ts';
import { temporary } from '../support/temporary.ts';
import { named, taskOf, tenantOf } from './records.ts';

const ROUNDS = 20;
const MAX_LIFE_MS = 150;
const script = fileURLToPath(new URL('./commit-forever.ts', import.meta.url));

/** Lines that a committing process printed until it was killed, somewhere after its first acknowledgement. */
async function killedWhileCommitting(
  path: string,
  prefix: string,
  lifeMs: number,
): Promise<readonly string[]> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, path, prefix], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    if (said === '') setTimeout(() => child.kill('SIGKILL'), lifeMs);
    said += text;
  });
  await once(child, 'close');
  assert.equal(child.signalCode, 'SIGKILL');
  return said.split('\n').slice(0, -1);
}

async function check(store: Store, lines: readonly string[]): Promise<void> {
  for (const line of lines) {
    const [what, task = ''] = line.split(' ');
    const turn = await store.turn(tenantOf(named(task)), taskOf(named(task)));
    assert.ok(turn, `${line}, but it is not there`);
    if (what === 'answered') assert.equal(turn.content, `say ${task}`);
    assert.ok(turn.finishedAtMs !== undefined, 'unfinished turns were ended as interrupted');
    if (turn.status === 'failed') assert.equal(turn.error?.code, 'INTERRUPTED');
    const reply = await store.answered(turn.tenantId, task);
    assert.equal(reply !== null, turn.status === 'completed', 'an end and its answer are stored together');
  }
}

test(`after each of ${ROUNDS} kills every acknowledged write is there`, async (t) => {
  const { path, database } = temporary(t);
  const lines: string[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const lifeMs = Math.random() * MAX_LIFE_MS;
    const acknowledged = await killedWhileCommitting(path('nooble.db'), `r${round}`, lifeMs);
    assert.ok(acknowledged.length > 0);
    lines.push(...acknowledged);
    const stores = await openStores({ url: database, log: quiet });
    await stores.conversations.commit({ type: 'unfinished-interrupted', atMs: 1_700_000_009_000 });
    await check(stores.conversations, acknowledged.slice(-200));
    if (round === ROUNDS - 1) await check(stores.conversations, lines.slice(0, 500));
    await stores.close();
  }
});
