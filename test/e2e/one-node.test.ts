/** One node a port and a database: the second one stops before it touches anything, and says who is there. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { symlinkSync } from 'node:fs';
import { relative } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { nooble } from '../support/command-line.ts';
import { runNode, spawnNode } from '../support/node.ts';
import { killed } from '../support/processes.ts';
import { temporary } from '../support/temporary.ts';

const SLOW = { DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: 'offline-100x50' };
const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

test('a second node on the database stops, by whatever path; the first one goes on, and commands work beside it', async (t) => {
  const place = temporary(t);
  symlinkSync(place.path('nooble.db'), place.path('link.db'));
  symlinkSync(place.folder, place.path('folder'));
  // Through a link whose file is not there yet.
  const first = await spawnNode(t, {
    ...SLOW,
    NODE_ID: 'first',
    DATABASE_URL: `sqlite:${place.path('link.db')}`,
  });
  const client = await first.chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');

  const paths = [relative(process.cwd(), place.path('link.db')), place.path('folder/nooble.db')];
  const [exported, ...seconds] = await Promise.all([
    nooble(['export', '--tenant', 'acme'], { DATABASE_URL: place.database }),
    ...paths.map((path) => runNode(t, { PORT: '0', DATABASE_URL: `sqlite:${path}` })),
  ]);
  for (const { code, stderr } of seconds) {
    assert.equal(code, 1, stderr);
    assert.match(stderr, /node first \(process \d+ on .+, since 20.+\) has /);
  }
  assert.equal(exported.code, 0, exported.err);
  assert.match(exported.err, /1 turns of acme/);
  assert.equal((await client.ended(task)).type, 'chat.response');
  const { body } = await first.ask('/api/sessions/s1/messages');
  assert.equal(body.messages.length, 2);

  await first.kill('SIGKILL');
  const next = await spawnNode(t, { NODE_ID: 'next', DATABASE_URL: place.database });
  assert.equal((await next.ask('/api/sessions/s1/messages')).body.messages.length, 2);
});

test('a port that a node has is taken', async (t) => {
  const first = await spawnNode(t, SLOW);
  const second = await runNode(t, { PORT: String(first.port) });
  assert.equal(second.code, 1);
  assert.match(second.stderr, /port is taken/);
  assert.equal((await first.ask('/health')).status, 200);
});

test('`npm start` ends with the process that the shell knows', async (t) => {
  const child = spawn('npm', ['start'], {
    cwd: PROJECT,
    env: { PATH: process.env.PATH, HOME: temporary(t).folder, PORT: '0', DATABASE_URL: 'sqlite::memory:' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => killed(child));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let line = '';
  while (!line.includes('"listening"')) line = (await lines.next()).value ?? assert.fail('it has ended');
  const url: string = JSON.parse(line).url;
  const gone = once(child, 'close');
  child.kill('SIGTERM');
  const rest: string[] = [];
  for await (const each of lines) rest.push(each);
  await gone;
  assert.ok(
    rest.some((each) => each.includes('"stopped"')),
    rest.join('\n'),
  );
  await assert.rejects(fetch(`${url}/health`));
});

test('the same signal twice, as a terminal and npm send it, is one', async (t) => {
  const node = await spawnNode(t, { ...SLOW, DEFAULT_MODEL: 'offline-20x50' });
  const client = await node.chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  node.kill('SIGINT');
  node.kill('SIGINT');
  node.kill('SIGTERM');
  assert.equal((await client.ended(task)).type, 'chat.response');
  assert.deepEqual(await node.exit, { code: 0, signal: null });
});
