/** `nooble cluster`: the nodes on one PostgreSQL, seen and told from a shell that reaches the database alone. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { spawnNode } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';
import { openShell } from './shell.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

async function scene(t: TestContext) {
  const url = await server.database();
  const shell = await openShell(t, { DATABASE_URL: url });
  return {
    nooble: (words: string) => shell.run(`cluster ${words}`),
    start: (nodeId: string, model = 'offline-3x0') =>
      spawnNode(t, {
        ...{ DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: model, DATABASE_URL: url, NODE_ID: nodeId },
      }),
  };
}

test('status and where show what each node has, also of one that is gone', async (t) => {
  const { nooble, start } = await scene(t);
  assert.match((await nooble('status')).out, /^No node has run/);
  const node = await start('first', 'offline-60x50');
  const client = await node.chat('acme', 's1');
  client.say('Go.');
  await client.see('chat.delta');

  const { code, out, err } = await nooble('status');
  assert.deepEqual([code, err], [0, '']);
  const [head, row, ...more] = out.split('\n');
  assert.match(head ?? '', /^BOOT +NODE +STATE +VERSION +STARTED +BEAT +SESSIONS +WANTED +RUNNING +UNSENT$/);
  assert.match(row ?? '', /^1 +first +live +\S+ +20\S+Z +\d\.\d s ago +1 +0 +1 +0$/);
  assert.deepEqual(more, []);
  const [told] = JSON.parse((await nooble('status --json')).out);
  assert.deepEqual([told.boot, told.owned, told.running], [1, 1, 1]);

  assert.equal((await nooble('where acme s1')).out, 's1: first (boot 1, live)');
  assert.match((await nooble('where umbrella s1')).out, /^s1: no node has it/);
  assert.equal(JSON.parse((await nooble('where acme s1 --json')).out).boot, 1);

  await node.kill('SIGKILL');
  await until('its beat is old', async () => /has not been heard of/.test((await nooble('status')).err));
  assert.match((await nooble('status')).err, /^first has not been heard of for \d+\.\d s\./);
});

test('a node that is told to drain finishes what runs, and stops by itself', async (t) => {
  const { nooble, start } = await scene(t);
  const node = await start('first', 'offline-40x50');
  await start('second');
  const client = await node.chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  const { code, out } = await nooble('drain first');
  assert.equal(code, 0);
  assert.match(out, /^first \(boot 1\) drains and stops/);
  assert.equal((await client.ended(task)).type, 'chat.response');
  assert.equal((await node.exit).code, 0);
  await node.line('an operator has this node leave');
  assert.match((await nooble('status')).out, /first +dead[\s\S]*second +live/);
  const again = await nooble('drain first');
  assert.equal(again.code, 1);
  assert.match(again.err, /No node first lives/);
});

test('a node that is buried goes on as a new boot, and is asked about twice', async (t) => {
  const { nooble, start } = await scene(t);
  const node = await start('first');
  const asked = await nooble('bury first');
  assert.equal(asked.code, 2);
  assert.match(asked.err, /say it again with --yes/);
  assert.match((await nooble('status')).out, /first +live/);
  assert.equal((await nooble('bury first --yes')).out, 'first (boot 1) is dead.');
  await node.line('the node goes on as a new one');
  assert.match((await nooble('status')).out, /1 +first +dead[\s\S]*2 +first +live/);
});

test('what is misspelt, unknown or not shared is refused with what to do', async (t) => {
  const { nooble } = await scene(t);
  for (const [words, message] of [
    ['', /takes status, where, drain or bury\./],
    ['stat', /takes status, where, drain or bury, not stat/],
    ['status now', /takes no further words/],
    ['where acme', /takes a tenant and a session/],
    ['where ac/me s1', /ac\/me is no tenant id/],
    ['drain', /takes the id of a node/],
    ['drain first --yes', /takes no --yes/],
    ['status --all', /takes no --all/],
  ] as const) {
    const { code, err } = await nooble(words);
    assert.equal(code, 2, words);
    assert.match(err, message);
  }
  for (const words of ['drain nobody', "bury x'; --yes"]) assert.equal((await nooble(words)).code, 1);
  const alone = await openShell(t);
  const refused = await alone.run('cluster status');
  assert.equal(refused.code, 2);
  assert.match(refused.err, /has one node at most: set DATABASE_URL/);
  const away = await alone.run('cluster status', { DATABASE_URL: 'postgres://u:secret@127.0.0.1:1/d' });
  assert.equal(away.code, 1);
  assert.match(away.err, /can not be opened/);
  assert.ok(!away.err.includes('secret'));
});
