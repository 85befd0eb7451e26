/** No webhook reaches this machine or its network: not by address, name, redirect, or a name that changes its answer. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { urlProblem } from '../../../src/domain/public-url.ts';
import {
  ForbiddenAddress,
  isPublicAddress,
  publicLookup,
  type ResolvedAddress,
} from '../../../transports/webhooks/addresses.ts';
import { notice, openReceiver, openWebhooks, tenant } from './webhook-receiver.ts';

const FORBIDDEN = {
  loopback: ['127.0.0.1', '127.255.255.254', '::1'],
  unspecified: ['0.0.0.0', '0.1.2.3', '::'],
  private: ['10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1', 'fc00::1', 'fd12:3456::1'],
  'link-local': ['169.254.169.254', '169.254.0.1', 'fe80::1', 'febf::1'],
  'carrier-grade NAT': ['100.64.0.1', '100.127.255.255'],
  multicast: ['224.0.0.1', '239.255.255.250', 'ff02::1'],
  broadcast: ['255.255.255.255'],
  reserved: ['240.0.0.1', '192.0.0.8', '192.0.2.1', '198.51.100.1', '203.0.113.1', '2001:db8::1', '3fff::1'],
  benchmark: ['198.18.0.1', '198.19.255.255', '2001:2::1'],
  'IPv4-mapped': ['::ffff:127.0.0.1', '::ffff:7f00:1', '::ffff:8.8.8.8'],
  'IPv4-compatible': ['::127.0.0.1', '::7f00:1', '::ffff:0:7f00:1'],
  NAT64: ['64:ff9b::7f00:1', '64:ff9b::808:808', '64:ff9b:1::1'],
  '6to4 and Teredo': ['2002:7f00:1::', '2001::1'],
  'not given out': ['4000::1', '8000::1', '100::1', '5f00::1', 'fec0::1'],
  'no address': ['', 'localhost', '127.1', '0x7f000001', '2130706433', '1.2.3.4.5'],
} as const;

const PUBLIC = ['1.1.1.1', '8.8.8.8', '172.32.0.1', '100.128.0.1', '2606:4700:4700::1111', '2a00:1450::1'];

test('every kind of address that is not public is known as such', () => {
  for (const [kind, addresses] of Object.entries(FORBIDDEN))
    for (const address of addresses) assert.equal(isPublicAddress(address), false, `${kind}: ${address}`);
  for (const address of PUBLIC) assert.equal(isPublicAddress(address), true, address);
});

const addressOf = (address: string): ResolvedAddress => ({ address, family: address.includes(':') ? 6 : 4 });

test('a name that resolves to any such address is never connected to, and its delivery is dead', async (t) => {
  const receiver = await openReceiver(t);
  const answers = Object.values(FORBIDDEN)
    .flat()
    .filter((address) => address !== '');
  let answer: readonly string[] = [];
  const dispatcher = openWebhooks(t, { blockPrivate: true, resolve: async () => answer.map(addressOf) });
  for (const [index, address] of answers.entries()) {
    // Beside a public address too: one bad apple is enough, whichever comes first.
    answer = index % 3 === 0 ? [address] : index % 3 === 1 ? ['1.1.1.1', address] : [address, '1.1.1.1'];
    const name = `tenant-${index}`;
    await dispatcher.hook(`http://hooks.example.com:${receiver.port}/`, {
      tenant_id: tenant(name),
      id: name,
    });
    dispatcher.notices.publish(notice('agent_updated', name));
    const dead = await dispatcher.store.until(
      ({ tenant_id, status }) => tenant_id === name && status !== 'pending',
    );
    assert.deepEqual(
      [dead.status, dead.last_error],
      ['dead', 'the host resolves to an address that is not public'],
      address,
    );
  }
  assert.equal(receiver.requests.length, 0);
});

test('a URL with such an address is not connected to either, however an older version let it in', async (t) => {
  const receiver = await openReceiver(t);
  const dispatcher = openWebhooks(t, { blockPrivate: true });
  const hosts = ['127.0.0.1', '0x7f.1', '2130706433', '[::1]', '[::ffff:127.0.0.1]', '0', 'localhost'];
  for (const [index, host] of hosts.entries()) {
    const name = `tenant-${index}`;
    await dispatcher.hook(`http://${host}:${receiver.port}/`, { tenant_id: tenant(name), id: name });
    dispatcher.notices.publish(notice('agent_updated', name));
    const after = await dispatcher.store.until(
      ({ tenant_id, status }) => tenant_id === name && status !== 'pending',
    );
    assert.match(after.last_error ?? '', /not public/, host);
  }
  assert.equal(receiver.requests.length, 0);
});

test('a name that answers differently the second time gains nothing', async (t) => {
  const receiver = await openReceiver(t);
  let asked = 0;
  const dispatcher = openWebhooks(t, {
    blockPrivate: true,
    timing: { timeoutMs: 200 },
    // 2d00::/8 is public by its form and given to nobody.
    resolve: async () => {
      asked += 1;
      return [addressOf(asked === 1 ? '2d00::1' : '127.0.0.1')];
    },
  });
  await dispatcher.hook(`http://rebinding.example.com:${receiver.port}/`);
  dispatcher.notices.publish(notice());
  const first = await dispatcher.store.outcome(1);
  assert.equal(first.status, 'pending');
  assert.equal(asked, 1, 'one attempt asks once: what was checked is what is connected to');
  await dispatcher.advance(5_000);
  const second = await dispatcher.store.outcome(2);
  assert.deepEqual([second.status, asked], ['dead', 2]);
  assert.equal(receiver.requests.length, 0);
});

test('the lookup hands over the checked addresses and no others, in both forms that net asks for', async () => {
  const look = (found: readonly string[], all: boolean): Promise<unknown> =>
    new Promise((resolve, reject) => {
      publicLookup(async () => found.map(addressOf))('x.example', { all }, (error, address, family) => {
        if (error) reject(error);
        else resolve(all ? address : [address, family]);
      });
    });
  assert.deepEqual(await look(['1.1.1.1', '2606:4700::1'], true), [
    { address: '1.1.1.1', family: 4 },
    { address: '2606:4700::1', family: 6 },
  ]);
  assert.deepEqual(await look(['1.1.1.1'], false), ['1.1.1.1', 4]);
  for (const all of [true, false]) {
    await assert.rejects(look(['1.1.1.1', '127.0.0.1'], all), ForbiddenAddress);
    await assert.rejects(look([], all), /no address/);
  }
});

test('a redirect into this network is not followed', async (t) => {
  const inside = await openReceiver(t);
  const outside = await openReceiver(t, (response, count) =>
    response
      .writeHead([301, 302, 303, 307, 308][count - 1] ?? 302, {
        location: `http://127.0.0.1:${inside.port}/`,
      })
      .end(),
  );
  const dispatcher = openWebhooks(t);
  for (const name of ['a', 'b', 'c', 'd', 'e']) {
    await dispatcher.hook(`http://127.0.0.1:${outside.port}/`, { tenant_id: tenant(name), id: name });
    dispatcher.notices.publish(notice('agent_updated', name));
    const after = await dispatcher.store.until(
      ({ tenant_id, last_error }) => tenant_id === name && last_error !== null,
    );
    assert.match(after.last_error ?? '', /redirects are not followed/);
  }
  assert.deepEqual([outside.requests.length, inside.requests.length], [5, 0]);
});

test('what a webhook may point at depends on two switches, and never on the form of the host', () => {
  const strict = { allowInsecure: false, blockPrivate: true };
  assert.equal(urlProblem('https://hooks.example.com:8443/a?b=c', strict), null);
  assert.match(urlProblem('http://hooks.example.com/', strict) ?? '', /https/);
  assert.equal(urlProblem('http://hooks.example.com/', { ...strict, allowInsecure: true }), null);
  assert.match(urlProblem('http://127.0.0.1/', { ...strict, allowInsecure: true }) ?? '', /not an IP/);
  assert.equal(urlProblem('http://127.0.0.1:9/', { allowInsecure: true, blockPrivate: false }), null);
  assert.match(urlProblem('https://127.0.0.1/', strict) ?? '', /not an IP/);
  for (const url of [
    'https://u:p@a.example/',
    'https://u@a.example/',
    'gopher://a.example/',
    'https://',
    'x',
  ])
    assert.notEqual(urlProblem(url, { allowInsecure: true, blockPrivate: false }), null, url);
});
