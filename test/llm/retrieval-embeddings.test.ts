/** Embeddings: offline ones are honest and always alike, an endpoint's are checked, and a call can be called off. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type TestContext, test } from 'node:test';
import { createEmbeddings } from '../../src/llm/embeddings.ts';
import { leakFree } from '../support/leaks.ts';
import { refusedWith } from '../support/transport.ts';

/** A real endpoint that answers as the test says. */
async function endpoint(
  t: TestContext,
  answer: (request: IncomingMessage, response: ServerResponse, body: string) => void,
): Promise<string> {
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => {
      body += chunk;
    });
    request.on('end', () => answer(request, response, body));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  return `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}/v1`;
}

const vectors = (response: ServerResponse, ...embeddings: readonly unknown[]): void => {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ data: embeddings.map((embedding, index) => ({ embedding, index })) }));
};

test('offline: the same text gives the same vector, and shared words are near', async () => {
  const offline = createEmbeddings({ apiKey: undefined, baseUrl: undefined });
  const [one = [], same = [], near = [], far = []] = await offline.embed([
    'Returning goods',
    'returning GOODS!',
    'goods we are returning',
    'zebra',
  ]);
  const dot = (a: readonly number[], b: readonly number[]): number =>
    a.reduce((sum, value, n) => sum + value * (b[n] ?? 0), 0);
  assert.match(offline.model, /^offline/);
  assert.equal(one.length, 256);
  assert.deepEqual(same, one);
  assert.ok(Math.abs(dot(one, one) - 1) < 1e-9);
  assert.ok(dot(one, near) > 0.4 && dot(one, near) > dot(one, far));
});

test('an endpoint is asked with its model and key, and answers a vector a text', async (t) => {
  leakFree(t, ['socket descriptor', 'TCPSocketWrap']);
  const baseUrl = await endpoint(t, (request, response, body) => {
    assert.equal(request.url, '/v1/embeddings');
    assert.equal(request.headers.authorization, 'Bearer key-1');
    assert.deepEqual(JSON.parse(body).input, ['a\nb', 'c']);
    vectors(response, [1, 2], [3, 4]);
  });
  const embeddings = createEmbeddings({ apiKey: 'key-1', baseUrl });
  assert.deepEqual(await embeddings.embed(['a\nb', 'c']), [
    [1, 2],
    [3, 4],
  ]);
});

test('what an endpoint answers instead of embeddings is refused', async (t) => {
  const answers: ((response: ServerResponse) => void)[] = [
    (response) => vectors(response, [1, 2]),
    (response) => vectors(response, [1, 2], [3]),
    (response) => vectors(response, [1, 2], ['x', null]),
    (response) => vectors(response, [], []),
    (response) => response.end('{}'),
    (response) => response.end('<html>'),
  ];
  let next = 0;
  const baseUrl = await endpoint(t, (_, response) => answers[next]?.(response));
  const embeddings = createEmbeddings({ apiKey: undefined, baseUrl });
  for (; next < answers.length; next += 1)
    assert.equal(await refusedWith(embeddings.embed(['a', 'b'])), 'MODEL_ERROR', `answer ${next}`);
});

test('an endpoint that fails, limits, or is away says so by its code', async (t) => {
  let status = 500;
  const baseUrl = await endpoint(t, (_, response) => {
    response.statusCode = status;
    response.end('{"error":{"message":"sk-secret"}}');
  });
  const embeddings = createEmbeddings({ apiKey: undefined, baseUrl });
  assert.equal(await refusedWith(embeddings.embed(['a'])), 'MODEL_UNAVAILABLE');
  status = 429;
  assert.equal(await refusedWith(embeddings.embed(['a'])), 'MODEL_RATE_LIMITED');
  status = 401;
  await assert.rejects(embeddings.embed(['a']), (error) => !/sk-secret/.test(String(error)));
  const away = createEmbeddings({ apiKey: undefined, baseUrl: 'http://127.0.0.1:1/v1' });
  assert.equal(await refusedWith(away.embed(['a'])), 'MODEL_UNAVAILABLE');
});

test('a call that is called off, or too slow, closes its connection', async (t) => {
  let closed = 0;
  const stop = new AbortController();
  const gone: Promise<unknown>[] = [];
  const baseUrl = await endpoint(t, (_, response) => {
    gone.push(
      once(response, 'close').then(() => {
        closed += 1;
      }),
    );
    stop.abort();
  });
  const embeddings = createEmbeddings({ apiKey: undefined, baseUrl });
  assert.equal(await refusedWith(embeddings.embed(['a'], stop.signal)), 'INTERRUPTED');
  assert.equal(await refusedWith(embeddings.embed(['a'], AbortSignal.abort())), 'INTERRUPTED');
  const slow = createEmbeddings({ apiKey: undefined, baseUrl, timeoutMs: 50 });
  assert.equal(await refusedWith(slow.embed(['a'])), 'MODEL_UNAVAILABLE');
  await Promise.all(gone);
  assert.equal(closed, 2);
});
