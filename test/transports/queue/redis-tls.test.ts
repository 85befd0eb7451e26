/** The transport over TLS: the whole contract, whom it trusts, and what it says of whom it does not. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { RefusalError } from '../../../src/domain/errors.ts';
import { tierSubscription, workQueue } from '../../../src/domain/queues.ts';
import { openRedisTransport } from '../../../transports/queue/redis/transport.ts';
import { openShell } from '../../cli/shell.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet } from '../../support/quiet.ts';
import { startRedis, startTlsRedis } from '../../support/redis.ts';
import { authority, certificate, key } from '../../support/tls-files.ts';
import { action, collecting, counting } from '../../support/transport.ts';
import { until } from '../../support/until.ts';
import { transportContract } from './contract.ts';

const [server, open, elsewhere, plain] = await Promise.all([
  startTlsRedis(),
  startTlsRedis('localhost', true),
  startTlsRedis('elsewhere', true),
  startRedis(),
]);
after(() => Promise.all([server, open, elsewhere, plain].map((each) => each.stop())));

const TRUSTING = `ssl_ca_certs=${authority}`;
const KNOWN = `${TRUSTING}&ssl_certfile=${certificate('localhost')}&ssl_keyfile=${key('localhost')}`;
const WORK = workQueue('free', 'default');

const opened = (url: string) => openRedisTransport({ url, nodeId: 'test', log: quiet, meter: counting() });

transportContract('redis over TLS with certificates on both sides', async (t, meter) => {
  await server.client.flushall();
  const url = `rediss://localhost:${server.port}?${KNOWN}`;
  const transport = await openRedisTransport({ url, nodeId: 'test', log: quiet, meter });
  t.after(() => transport.close());
  return {
    transport,
    meter,
    push: async (name, body) => void (await server.client.lpush(name, Buffer.from(body))),
  };
});

test('a server that dies and comes back is found again', async (t) => {
  leakFree(t);
  const transport = await opened(`rediss://127.0.0.1:${open.port}/3?${TRUSTING}`);
  t.after(() => transport.close());
  const heard = collecting();
  await transport.consume([tierSubscription(WORK, 'free')], heard.listener, { credits: 1 });
  await open.restart();
  await until('the transport', () =>
    transport.ping().then(
      () => true,
      () => false,
    ),
  );
  await transport.send(WORK, action(1), 'json');
  await heard.heard(1);
});

/** URL, what the transport says, and what `nooble doctor` says. */
const REFUSED: readonly (readonly [string, string, RegExp, RegExp])[] = [
  [
    'an unknown authority',
    `rediss://localhost:${open.port}`,
    /self-signed certificate in certificate chain; .*ssl_ca_certs=.*NODE_EXTRA_CA_CERTS/,
    /SELF_SIGNED_CERT_IN_CHAIN.*ssl_ca_certs=.*NODE_EXTRA_CA_CERTS/,
  ],
  [
    'a certificate for another name',
    `rediss://localhost:${elsewhere.port}?${TRUSTING}`,
    /does not match certificate's altnames.*localhost.*elsewhere\.example; its certificate is for another/,
    /ERR_TLS_CERT_ALTNAME_INVALID.*elsewhere\.example; its certificate is for another/,
  ],
  [
    'a certificate for another address',
    `rediss://127.0.0.1:${elsewhere.port}?${TRUSTING}`,
    /IP: 127\.0\.0\.1 is not in the cert/,
    /IP: 127\.0\.0\.1 is not in the cert/,
  ],
  [
    'a server that wants a certificate of ours',
    `rediss://localhost:${server.port}?${TRUSTING}`,
    /it wants a certificate of ours: ssl_certfile and ssl_keyfile/,
    /it wants a certificate of ours: ssl_certfile and ssl_keyfile/,
  ],
  [
    'a server without TLS',
    `rediss://localhost:${plain.port}?${TRUSTING}`,
    /perhaps it does not speak TLS/,
    /perhaps it does not speak TLS/,
  ],
  [
    'a server that speaks TLS only',
    `redis://localhost:${open.port}`,
    /perhaps it wants TLS: rediss:/,
    /perhaps it wants TLS: rediss:/,
  ],
];

for (const [sentence, url, said, doctorSays] of REFUSED)
  test(`${sentence} is refused with what to do, also by doctor`, async (t) => {
    leakFree(t);
    const error = await opened(url).catch((reason: unknown) => reason);
    assert.ok(error instanceof RefusalError, String(error));
    assert.equal(error.data.code, 'TRANSPORT_UNAVAILABLE');
    assert.match(error.data.message, said);

    const shell = await openShell(t, { PORT: '0', REDIS_URL: url });
    const { code, out } = await shell.run('doctor');
    assert.equal(code, 1);
    const line = out.split('\n').find((each) => each.startsWith('fail  redis')) ?? out;
    assert.match(line, doctorSays);
  });

test('doctor finds nothing wrong with a Redis whose authority is named, and says which file is missing', async (t) => {
  leakFree(t);
  const shell = await openShell(t, { PORT: '0', REDIS_URL: `rediss://localhost:${server.port}?${KNOWN}` });
  const { code, out } = await shell.run('doctor');
  assert.equal(code, 0, out);
  const missing = { REDIS_URL: `rediss://localhost:${server.port}?ssl_ca_certs=/no/such.pem` };
  assert.match((await shell.run('doctor', missing)).out, /^fail {2}redis .*\/no\/such\.pem/m);
});

test('an authority that Node was told of at its start is trusted', async () => {
  const root = fileURLToPath(new URL('../../..', import.meta.url));
  const script = `
    import { openRedisTransport } from './transports/queue/redis/transport.ts';
    const { env } = process;
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const transport = await openRedisTransport({ url: env.URL_TO_TRY, nodeId: 'n', log, meter: { counted() {} } });
    await transport.ping();
    await transport.close();
    console.log('trusted');`;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--import', 'tsx', '--input-type=module', '--eval', script],
    {
      cwd: root,
      env: { ...process.env, NODE_EXTRA_CA_CERTS: authority, URL_TO_TRY: `rediss://localhost:${open.port}` },
    },
  );
  assert.equal(stdout.trim(), 'trusted');
});
