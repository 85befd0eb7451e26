/** Names of receivers: looked up with a deadline, remembered for a while, and beside the threads that others need. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { type TestContext, test } from 'node:test';
import { createResolve } from '../../../transports/webhooks/names.ts';
import { leakFree } from '../../support/leaks.ts';
import { type NameAnswer, startNameServer } from '../../support/name-server.ts';
import { temporary } from '../../support/temporary.ts';
import { notice, openReceiver, openWebhooks } from './webhook-receiver.ts';

interface Zone {
  readonly [name: string]: { readonly A?: NameAnswer; readonly AAAA?: NameAnswer };
}

async function scene(t: TestContext, zone: Zone, { ttlS = 60, hosts = '', deadlineMs = 1_000 } = {}) {
  leakFree(t);
  const server = await startNameServer(t, (name, family) => zone[name]?.[family] ?? 'unknown', ttlS);
  const hostsFile = temporary(t).write('hosts', hosts);
  const resolve = createResolve({ servers: [server.address], hostsFile, deadlineMs });
  const addresses = async (name: string) => (await resolve(name)).map(({ address }) => address).sort();
  const code = (name: string): Promise<string> =>
    resolve(name).then(
      () => 'found',
      (error: { code: string }) => error.code,
    );
  return { server, resolve, addresses, code };
}

test('both families are asked, and one of them is enough', async (t) => {
  const { addresses, resolve } = await scene(t, {
    'both.test': { A: ['1.1.1.1', '1.0.0.1'], AAAA: ['2606:4700:4700:0:0:0:0:1111'] },
    'four.test': { A: ['8.8.8.8'], AAAA: [] },
    'six.test': { AAAA: ['2606:4700:4700:0:0:0:0:1'] },
    'half.test': { A: ['9.9.9.9'], AAAA: 'silence' },
  });
  assert.deepEqual(await addresses('both.test'), ['1.0.0.1', '1.1.1.1', '2606:4700:4700::1111']);
  assert.deepEqual(await resolve('four.test'), [{ address: '8.8.8.8', family: 4 }]);
  assert.deepEqual(await resolve('SIX.test.'), [{ address: '2606:4700:4700::1', family: 6 }]);
  assert.deepEqual(await addresses('half.test'), ['9.9.9.9']);
});

test('a name without addresses, one that nobody has, and a silent server are told apart', async (t) => {
  const { code } = await scene(t, {
    'empty.test': { A: [], AAAA: [] },
    'silent.test': { A: 'silence', AAAA: 'silence' },
  });
  assert.deepEqual(
    await Promise.all(['empty.test', 'nobody.test', 'silent.test', 'x.invalid', ''].map(code)),
    ['ENOTFOUND', 'ENOTFOUND', 'ETIMEOUT', 'ENOTFOUND', 'ENOTFOUND'],
  );
});

test('what the machine lists counts before any server, addresses and loopback need none', async (t) => {
  const { addresses, server } = await scene(
    t,
    { 'listed.test': { A: ['1.1.1.1'] } },
    { hosts: '# listed.test\n10.0.0.9  other LISTED.test # x\nfd00::9\tlisted.test\n' },
  );
  assert.deepEqual(await addresses('listed.test'), ['10.0.0.9', 'fd00::9']);
  assert.deepEqual(await addresses('192.0.2.7'), ['192.0.2.7']);
  assert.deepEqual(await addresses('localhost'), ['127.0.0.1', '::1']);
  assert.deepEqual(server.questions, []);
});

test('a name is asked for once, by whoever wants it, and remembered as long as its server says', async (t) => {
  const zone = { 'a.test': { A: ['1.1.1.1'], AAAA: [] } };
  const lasting = await scene(t, zone);
  await Promise.all([1, 2, 3].map(() => lasting.addresses('a.test')));
  await lasting.addresses('A.test');
  assert.deepEqual([...lasting.server.questions].sort(), ['A a.test', 'AAAA a.test']);
  assert.equal(await lasting.code('nobody.test'), 'ENOTFOUND');
  assert.equal(await lasting.code('nobody.test'), 'ENOTFOUND');
  assert.equal(lasting.server.questions.length, 4);
  const fleeting = await scene(t, zone, { ttlS: 0 });
  await fleeting.addresses('a.test');
  await fleeting.addresses('a.test');
  assert.equal(fleeting.server.questions.length, 4);
});

test('while many names wait for a silent server files are read, and other names are found', async (t) => {
  const { addresses, code } = await scene(t, { 'a.test': { A: ['1.1.1.1'] } }, { deadlineMs: 1_500 });
  const silence = { A: 'silence', AAAA: 'silence' } as const;
  const names = Array.from({ length: 40 }, (_, index) => `n${index}.test`);
  const silent = await scene(t, Object.fromEntries(names.map((name) => [name, silence])), {
    deadlineMs: 1_500,
  });
  let ended = 0;
  const waiting = names.map((name) =>
    silent.code(name).finally(() => {
      ended += 1;
    }),
  );
  await readFile(new URL(import.meta.url));
  assert.deepEqual(await addresses('a.test'), ['1.1.1.1']);
  assert.equal(await code('nobody.test'), 'ENOTFOUND');
  assert.equal(ended, 0);
  assert.deepEqual(new Set(await Promise.all(waiting)), new Set(['ETIMEOUT']));
});

test('a webhook whose name leads inside is not reached, whatever its server said before', async (t) => {
  const zone: { [name: string]: { A: NameAnswer } } = { 'hooks.test': { A: ['127.0.0.1'] } };
  const { resolve } = await scene(t, zone);
  const receiver = await openReceiver(t);
  const dispatcher = openWebhooks(t, { resolve, blockPrivate: true });
  await dispatcher.hook(`http://hooks.test:${receiver.port}/`);
  dispatcher.notices.publish(notice());
  const dead = await dispatcher.store.until(({ status }) => status === 'dead');
  assert.match(dead.last_error ?? '', /not public/);
  const open = openWebhooks(t, { resolve });
  await open.hook(`http://hooks.test:${receiver.port}/`);
  open.notices.publish(notice());
  await open.store.until(({ status }) => status === 'delivered');
  assert.equal(receiver.requests.length, 1);
});
