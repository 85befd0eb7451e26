/** What strangers may cost: documents are made once, figures for all who ask, and a body that is not wanted is not read. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fixedJson, shared } from '../../../transports/http/shared-answers.ts';
import { rawConnection, requestText } from '../../support/http-client.ts';
import { openHttpNode } from '../../support/http-node.ts';

test('the documents have an ETag, and whoever has them is told so', async (t) => {
  const node = await openHttpNode(t);
  for (const path of ['/openapi.json', '/asyncapi.json']) {
    const first = await node.ask(path);
    const tag = first.headers.get('etag') ?? '';
    assert.match(tag, /^"[\w-]{22}"$/);
    assert.ok((await first.text()).startsWith('{"'));
    for (const known of [tag, `W/${tag}`, `"other", W/${tag}`, '*']) {
      const again = await node.ask(path, { headers: { 'if-none-match': known } });
      assert.deepEqual([again.status, again.headers.get('etag'), await again.text()], [304, tag, '']);
    }
    assert.equal((await node.ask(path, { headers: { 'if-none-match': '"other"' } })).status, 200);
  }
  assert.notEqual(
    fixedJson({ a: 1 })(undefined).headers.get('etag'),
    fixedJson({ a: 2 })(undefined).headers.get('etag'),
  );
});

test('figures and readiness are worked out once for all who ask together, and never told late', async (t) => {
  const made = { metrics: 0, checks: 0 };
  const node = await openHttpNode(t, {
    deps: {
      metricsText: async () => {
        made.metrics += 1;
        return { contentType: 'text/plain', body: `made ${made.metrics}` };
      },
      checks: {
        store: async () => {
          made.checks += 1;
        },
      },
    },
  });
  await Promise.all(Array.from({ length: 40 }, (_, index) => node.ask(index % 2 ? '/metrics' : '/ready')));
  assert.ok(made.metrics < 20 && made.checks < 20, JSON.stringify(made));
  const before = made.metrics;
  assert.equal(await (await node.ask('/metrics')).text(), `made ${before + 1}`);
});

test('what breaks while it is made for many breaks for all of them, and is made anew', async () => {
  let calls = 0;
  const make = shared(() => {
    calls += 1;
    if (calls === 1) throw new Error('broke');
    return calls;
  });
  const both = await Promise.allSettled([make(), make()]);
  assert.deepEqual(
    both.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  assert.equal(await make(), 2);
});

test('the makings take a bounded part of the time', async () => {
  const make = shared(() => {
    const endMs = performance.now() + 5;
    while (performance.now() < endMs);
  }, 9);
  const startedMs = performance.now();
  for (let index = 0; index < 5; index += 1) await make();
  assert.ok(performance.now() - startedMs >= 5 * 5 + 4 * 44, 'four rests of nine times 5 ms lie between');
});

test('a body that is not wanted is refused before it comes, and the connection goes on', async (t) => {
  const open = await openHttpNode(t);
  const guarded = await openHttpNode(t, { mode: 'jwt' });
  const json = 'Content-Type: application/json';
  for (const [port, status, path, header] of [
    [open.port, 404, '/api/nothing', json],
    [open.port, 405, '/health', json],
    [open.port, 400, '/api/chat/send', 'Content-Type: text/plain'],
    [open.port, 400, '/api/chat/send?wiat=1', json],
    [guarded.port, 401, '/api/chat/send', json],
  ] as const) {
    const raw = rawConnection(port);
    raw.write(requestText('POST', path, ['X-Tenant-ID: acme', header, 'Content-Length: 200000']));
    await raw.until(`HTTP/1.1 ${status} `);
    raw.write('x'.repeat(200_000));
    raw.write(requestText('GET', '/ready'));
    await raw.until('"status":"ready"');
    raw.destroy();
  }
  assert.equal(open.script.said.length, 0);
});
