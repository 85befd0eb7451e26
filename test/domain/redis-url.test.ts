/** What a REDIS_URL means, and that what is wrong with one is said without its secrets. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRedisUrl, tlsAdvice } from '../../src/domain/redis-url.ts';

const SERVER = { secure: false, credentials: {}, db: 0, tlsFiles: {} };

test('a server, with a password of any characters, over TLS with files', () => {
  assert.deepEqual(parseRedisUrl('redis://'), {
    ...SERVER,
    at: { kind: 'server', address: { host: '127.0.0.1', port: 6379 } },
  });
  assert.deepEqual(parseRedisUrl('redis://word@h').credentials, { password: 'word' });
  assert.deepEqual(parseRedisUrl('redis://u:p@ss?#:%2F@h:1/2').credentials, {
    username: 'u',
    password: 'p@ss?#:/',
  });
  const files = 'ssl_ca_certs=/a/ca+1.pem&ssl_certfile=%2Fb.pem&ssl_keyfile=c.pem';
  assert.deepEqual(parseRedisUrl(`rediss://[::1]:7/2?${files}`), {
    ...SERVER,
    secure: true,
    db: 2,
    tlsFiles: { ca: '/a/ca+1.pem', cert: '/b.pem', key: 'c.pem' },
    at: { kind: 'server', address: { host: '::1', port: 7 } },
  });
});

test('sentinels, over TLS like Redis unless the URL says otherwise', () => {
  assert.deepEqual(
    parseRedisUrl('redis+sentinel://u:p@a:1,b/main%201/2?sentinel_user=s&sentinel_password=t+%2B'),
    {
      ...SERVER,
      credentials: { username: 'u', password: 'p' },
      db: 2,
      at: {
        kind: 'sentinels',
        addresses: [
          { host: 'a', port: 1 },
          { host: 'b', port: 26379 },
        ],
        master: 'main 1',
        credentials: { username: 's', password: 't++' },
        secure: false,
      },
    },
  );
  const isSecure = (query: string): unknown => {
    const { at, secure } = parseRedisUrl(`rediss+sentinel://h/m${query}`);
    return [secure, at.kind === 'sentinels' && at.secure];
  };
  assert.deepEqual(isSecure(''), [true, true]);
  assert.deepEqual(isSecure('?sentinel_tls=yes'), [true, true]);
  assert.deepEqual(isSecure('?sentinel_tls=no'), [true, false]);
});

test('what is wrong is named, and no secret is said', () => {
  const wrong: readonly (readonly [string, RegExp])[] = [
    ['http://:hush@h', /must look like/],
    ['redis:/h', /must look like/],
    ['redis://:hush@h:99999', /host or port/],
    ['redis://:hush@h:0', /host or port/],
    ['redis://:hush@h,i', /host or port/],
    ['redis://:hush@h x', /host or port/],
    ['redis://:hush%@h', /% that is no escape/],
    ['redis://:hush@h/x', /database/],
    ['redis+sentinel://:hush@h', /must name the master/],
    ['redis+sentinel://:hush@h/m/x', /database/],
    ['rediss+sentinel://h/m?sentinel_password=hush&sentinel_tls=maybe', /sentinel_tls is yes or no/],
    ['redis+sentinel://h/m?sentinel_pass=hush', /the option sentinel_pass, .*sentinel_password/],
    ['redis+sentinel://h/m?ssl_ca_certs=hush', /the option ssl_ca_certs/],
    ['redis://h?ssl_ca_certs=hush', /the option ssl_ca_certs, .*none/],
    ['rediss://h?ssl_cert_reqs=none', /the option ssl_cert_reqs, .*ssl_ca_certs/],
    ['redis://h?hu:sh', /has an option,/],
    ['rediss://h?ssl_certfile=hush', /ssl_certfile and ssl_keyfile together/],
    [`redis://${'h'.repeat(100_000)}:x`, /host or port/],
    ['redis+sentinel://h/m?sentinel_tls=yes', /the option sentinel_tls/],
    [`redis://${'@'.repeat(100_000)}:x`, /host or port/],
  ];
  for (const [url, problem] of wrong) {
    const said = (() => {
      try {
        parseRedisUrl(url);
        return '';
      } catch (error) {
        return error instanceof Error ? error.message : '';
      }
    })();
    assert.match(said, problem, url.slice(0, 80));
    assert.doesNotMatch(said, /hush|hu:sh/);
    assert.ok(said.length < 300);
  }
});

test('advice fits what happened and how it was asked', () => {
  assert.match(tlsAdvice('SELF_SIGNED_CERT_IN_CHAIN', true) ?? '', /ssl_ca_certs/);
  assert.match(tlsAdvice('CERT_HAS_EXPIRED', true) ?? '', /renew/);
  assert.match(tlsAdvice('ERR_SSL_TLSV1_ALERT_UNKNOWN_CA', true) ?? '', /does not trust ssl_certfile/);
  assert.match(tlsAdvice('ECONNRESET', false) ?? '', /rediss:/);
  assert.equal(tlsAdvice('ECONNREFUSED', true), undefined);
  assert.equal(tlsAdvice('WRONGPASS', false), undefined);
});
