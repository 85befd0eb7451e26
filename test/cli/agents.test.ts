/** `nooble agents` and `nooble tenants` against a real node over HTTP. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { parse } from 'yaml';
import { leakFree } from '../support/leaks.ts';
import { openManagementNode } from '../transports/http/management-node.ts';
import { openShell } from './shell.ts';

const SERVICE_TOKEN = 'the-token-of-all-services';

async function open(t: TestContext) {
  leakFree(t);
  const node = await openManagementNode({ serviceToken: SERVICE_TOKEN });
  t.after(() => node.close());
  return { node, shell: await openShell(t, { NOOBLE_URL: node.url, NOOBLE_TENANT: 'acme' }) };
}

const BOT = `# our bot
name: Support Bot
slug: support-bot
temperature: 0.2
tools: [calculator]
system_prompt: |
  You help.
  Be brief.
`;

test('apply creates an agent, finds it again by its slug, changes what differs, and then nothing', async (t) => {
  const { shell } = await open(t);
  const file = await shell.write('bot.yaml', BOT);
  const created = await shell.run(`agents apply -f ${file}`);
  assert.equal(created.code, 0, created.err);
  assert.match(created.out, /^support-bot: created as \S+$/);
  assert.equal((await shell.run(`agents apply -f ${file}`)).out, 'support-bot: unchanged (version 1)');

  await shell.write('bot.yaml', BOT.replace('0.2', '0.5').replace('[calculator]', '[]'));
  const dry = await shell.run(`agents apply -f ${file} --dry-run`);
  assert.match(dry.out, /^support-bot: would be changed \(version 1\)\n {2}temperature: 0.2 → 0.5/);
  const changed = await shell.run(`agents apply -f ${file}`);
  assert.deepEqual(changed.out.split('\n'), [
    'support-bot: changed to version 2',
    '  temperature: 0.2 → 0.5',
    '  tools: ["calculator"] → []',
  ]);
  assert.equal((await shell.run(`agents apply -f ${file}`)).out, 'support-bot: unchanged (version 2)');
});

test('several agents may stand in one file, and JSON is YAML too', async (t) => {
  const { shell } = await open(t);
  const two = await shell.write('two.yaml', `${BOT}---\nname: Other\nslug: other\n---\n`);
  assert.equal((await shell.run(`agents apply -f ${two}`)).out.split('\n').length, 2);
  const json = await shell.write('one.json', '{"name": "Third", "slug": "third"}');
  assert.match((await shell.run(`agents apply -f ${json}`)).out, /^third: created/);
  const { out } = await shell.run('agents list');
  assert.match(out, /^SLUG +NAME +TYPE/);
  for (const slug of ['support-bot', 'other', 'third']) assert.ok(out.includes(slug));
  const listed: unknown = JSON.parse((await shell.run('agents list --json')).out);
  assert.ok(Array.isArray(listed) && listed.length === 3);
});

test('get gives YAML that can be applied again; rollback and history go by slug too', async (t) => {
  const { shell } = await open(t);
  const file = await shell.write('bot.yaml', BOT);
  await shell.run(`agents apply -f ${file}`);
  const got = await shell.run('agents get support-bot');
  assert.equal(parse(got.out).temperature, 0.2);
  await shell.write('again.yaml', got.out);
  assert.match((await shell.run(`agents apply -f ${shell.path('again.yaml')}`)).out, /unchanged/);

  await shell.write('bot.yaml', BOT.replace('0.2', '0.9'));
  await shell.run(`agents apply -f ${file}`);
  const back = await shell.run('agents rollback support-bot 1');
  assert.deepEqual(back.out.split('\n'), [
    'support-bot: version 3 is what version 1 was',
    '  temperature: 0.9 → 0.2',
  ]);
  const { out } = await shell.run('agents history support-bot');
  assert.match(out, /rolled_back +anonymous \(cli\) +temperature/);
  assert.equal(out.split('\n').length, 4);
  assert.match((await shell.run('agents get support-bot --json')).out, /"version": 3/);
});

test('what the node refuses is told line by line, with exit code 1', async (t) => {
  const { shell } = await open(t);
  const file = await shell.write('bad.yaml', 'slug: bad\ntemperature: 9\ncolour: red\n');
  for (const more of ['', ' --dry-run']) {
    const { code, err, out } = await shell.run(`agents apply -f ${file}${more}`);
    assert.equal(code, 1);
    assert.equal(out, '');
    for (const field of ['name', 'temperature', 'colour'])
      assert.match(err, new RegExp(`^ {2}${field}`, 'm'));
  }
  const big = await shell.write('big.yaml', 'name: Big\nslug: big\nprovider: openai\nmodel: gpt-4.1\n');
  const { err } = await shell.run(`agents apply -f ${big} --tier free`);
  assert.match(err, /TIER_LIMIT:\n {2}model: .*advance/);
  assert.match((await shell.run('agents get nobody')).err, /has no agent nobody; `nooble agents list`/);
  assert.match((await shell.run('agents rollback nobody 1')).err, /no agent nobody/);
});

test('files that are no agents are exit code 2, and say why', async (t) => {
  const { shell } = await open(t);
  const cases: [string, RegExp][] = [
    ['name: x\n', /slug: .*found again by its slug/],
    ['name: x\nslug: Not This\n', /slug: must be 2 to 50/],
    ['a: [1\n', /is no YAML/],
    ['', /names no agent/],
    ['- a\n- b\n', /slug/],
    ['a: &a [x]\nb: [*a,*a]\n', /slug/],
  ];
  for (const [text, expected] of cases) {
    const { code, err } = await shell.run(`agents apply -f ${await shell.write('x.yaml', text)}`);
    assert.equal(code, 2, text);
    assert.match(err, expected);
  }
  assert.equal((await shell.run(`agents apply -f ${shell.path('absent.yaml')}`)).code, 2);
});

test('a billion laughs are refused before anybody laughs', async (t) => {
  const { shell } = await open(t);
  const lines = ['slug: laugh', 'a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
  for (let n = 1; n < 9; n += 1)
    lines.push(
      `a${n}: &a${n} [${Array(10)
        .fill(`*a${n - 1}`)
        .join(', ')}]`,
    );
  const { code, err } = await shell.run(`agents apply -f ${await shell.write('x.yaml', lines.join('\n'))}`);
  assert.notEqual(code, 0);
  assert.match(err, /alias/i);
});

test('set-tier reaches the tenant, with the service token only', async (t) => {
  const { shell } = await open(t);
  const set = await shell.run('tenants set-tier acme free', { SERVICE_TOKEN });
  assert.deepEqual([set.code, set.out], [0, 'acme: tier free']);
  const file = await shell.write('bot.yaml', BOT);
  assert.match((await shell.run(`agents apply -f ${file}`)).err, /TIER_LIMIT/);
  const wrong = await shell.run('tenants set-tier acme free', { SERVICE_TOKEN: 'another-token-altogether' });
  assert.equal(wrong.code, 1);
  assert.match(wrong.err, /UNAUTHENTICATED.*SERVICE_TOKEN/);
  assert.equal((await shell.run('tenants set-tier acme free')).code, 2);
  for (const words of [
    'tenants',
    'tenants set-tier acme',
    'tenants set-tier acme gold',
    'tenants set-tier a/b free',
  ])
    assert.equal((await shell.run(words, { SERVICE_TOKEN })).code, 2, words);
});

test('a node that is not there, or is something else, is told apart from a refusal', async (t) => {
  const { shell, node } = await open(t);
  const absent = await shell.run('agents list --url http://127.0.0.1:1');
  assert.equal(absent.code, 1);
  assert.match(absent.err, /does not answer \(.*\); is the node running there/);
  assert.equal((await shell.run('agents list --url nonsense')).code, 2);
  const elsewhere = await shell.run(`agents list --url ${node.url}/health/`);
  assert.equal(elsewhere.code, 1);
  const nobody = await shell.run('agents list', { NOOBLE_TENANT: '' });
  assert.match(nobody.err, /No tenant is named.*--tenant/);
});

test('words and options that are not understood are exit code 2', async (t) => {
  const { shell } = await open(t);
  for (const words of [
    'fly',
    'agents',
    'agents fly',
    'agents get',
    'agents get a b',
    'agents list --output x',
    'agents list --nope',
    'agents apply',
    'agents apply -f',
    'agents rollback a',
    'agents rollback a one',
    'agents rollback a 0',
    'doctor now',
    'doctor --json',
    'export',
    'export --tenant a/b',
    'import',
  ]) {
    const { code, err } = await shell.run(words);
    assert.equal(code, 2, `${words}: ${err}`);
    assert.match(err, /^nooble: /, words);
  }
  for (const words of ['help', '--help', 'agents --help', '']) {
    const { code, out } = await shell.run(words);
    assert.equal(code, 0);
    assert.match(out, /nooble agents apply/);
  }
});
