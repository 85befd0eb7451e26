/** A node behind Debian's nginx and Caddy with the files of `deploy/`: whatever clients may do, they may do through them. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { connect as openSocket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { startCaddy } from '../support/caddy.ts';
import { rawConnection, readEvents, requestText } from '../support/http-client.ts';
import { NGINX_DEFAULTS, startNginx } from '../support/nginx.ts';
import { type AskOptions, startTestNode } from '../support/node.ts';
import { bearer, JWT, token } from '../support/tokens.ts';
import { connect } from '../support/websocket-client.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of every shape
const json = async (response: Response): Promise<any> => JSON.parse(await response.text());

const SCOPE = 'chat agents:read agents:write';

const PROXIES = { nginx: startNginx, Caddy: startCaddy } as const;
type Proxy = keyof typeof PROXIES;

async function proxied(t: TestContext, proxy: Proxy, model = 'offline-3x0') {
  const node = await startTestNode(t, { env: { ...JWT, DEFAULT_MODEL: model, DELTA_WINDOW_MS: '0' } });
  const port = await PROXIES[proxy](t, node.port);
  const url = `http://127.0.0.1:${port}`;
  const authorization = await bearer('acme', { scope: SCOPE });
  const ask = (path: string, { method, body, headers }: AskOptions = {}) =>
    fetch(url + path, {
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      // A connection that is kept is waited for at the end of the test.
      headers: { ...authorization, 'content-type': 'application/json', connection: 'close', ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  return { node, port, url, ask, authorization: `Authorization: ${authorization.authorization}` };
}

for (const proxy of ['nginx', 'Caddy'] as const) {
  test(`${proxy}: requests, refusals and weak tags pass the proxy`, async (t) => {
    const { ask } = await proxied(t, proxy);
    assert.equal((await ask('/health')).status, 200);
    const missing = await ask('/api/nothing');
    assert.equal((await json(missing)).error.code, 'NOT_FOUND');
    const wrong = await ask('/api/chat/send', { body: { message: 'hi', sesion_id: 'x' } });
    assert.match((await json(wrong)).error.message, /did you mean `session_id`/);

    const made = await ask('/api/agents', { body: { name: 'Proxied', description: 'x'.repeat(200) } });
    const { id } = await json(made);
    const read = await ask(`/api/agents/${id}`, { headers: { 'accept-encoding': 'gzip' } });
    if (proxy === 'nginx')
      assert.equal(read.headers.get('etag'), 'W/"1"', 'it compresses, and weakens the tag');
    assert.equal(read.headers.get('content-encoding'), 'gzip');
    const change = { method: 'PATCH', body: { description: 'y' } };
    const changed = await ask(`/api/agents/${id}`, {
      ...change,
      headers: { 'if-match': read.headers.get('etag') ?? '' },
    });
    assert.equal(changed.status, 200);
    const stale = await ask(`/api/agents/${id}`, { ...change, headers: { 'if-match': 'W/"1"' } });
    assert.equal(stale.status, 409);

    const large = await ask('/api/chat/send', {
      body: { message: 'hi', context: { a: 'x'.repeat(300_000) } },
    });
    assert.deepEqual([large.status, (await json(large)).error.code], [413, 'TOO_LARGE']);
  });

  test(`${proxy}: a stream comes as it is written, and goes on where it was cut off`, async (t) => {
    const { ask } = await proxied(t, proxy, 'offline-20x50');
    const body = { message: 'hi', session_id: 's1', task_id: randomUUID() };
    const stream = (headers: Record<string, string> = {}) =>
      ask('/api/chat/send', { body, headers: { accept: 'text/event-stream', ...headers } });
    const events = readEvents(await stream());
    for (let count = 0; count < 3; count += 1) await events.next();
    const last = (await events.next())?.id;
    const standing = await json(await ask(`/api/chat/tasks/${body.task_id}`));
    assert.equal(standing.status, 'processing', 'the first events are there before the last');
    const rest = await readEvents(await stream({ 'last-event-id': last ?? '' })).rest();
    assert.equal(Number(rest[0]?.id), Number(last) + 1);
    assert.equal(rest.at(-1)?.event, 'chat.response');
    const whole = await events.rest();
    assert.equal(whole.at(-1)?.event, 'chat.response');
  });

  test(`${proxy}: a WebSocket passes the proxy, for pages of the same host with its port`, async (t) => {
    const { port, url } = await proxied(t, proxy);
    const protocols = ['nooble', `bearer.${await token('acme')}`];
    const path = `ws://127.0.0.1:${port}/ws/acme/s1/`;
    const client = await connect(path, { protocols, headers: { Origin: url } });
    await client.next('session.ready');
    client.send({ type: 'chat.send', message: 'hi' });
    await client.next('chat.response');
    await client.close();
    const foreign: unknown = await connect(path, {
      protocols,
      headers: { Origin: 'http://127.0.0.1' },
    }).catch((error: unknown) => error);
    assert.match(String(foreign), /403/);
  });

  test(`${proxy}: long headers pass, too long ones are told, and what is internal stays so`, async (t) => {
    const { ask, port } = await proxied(t, proxy);
    assert.equal((await ask('/health', { headers: { cookie: 'x'.repeat(12_000) } })).status, 200);
    const heavy = { a: 'x'.repeat(7_000), b: 'x'.repeat(7_000), c: 'x'.repeat(7_000) };
    const told = await ask('/health', { headers: heavy });
    assert.equal(told.status, 431);
    if (proxy === 'nginx') assert.equal((await json(told)).error.code, 'TOO_LARGE');
    for (const path of ['/internal/agents/x/config', '/api/%2e%2e/internal/agents/x/config']) {
      const raw = rawConnection(port);
      raw.write(requestText('GET', path, ['Connection: close']));
      assert.match((await raw.closed).toString(), /^HTTP\/1\.1 404 /, path);
    }
  });

  test(`${proxy}: a node that is away is told as one to come back to`, async (t) => {
    const { ask, node } = await proxied(t, proxy);
    await node.running.close();
    const away = await ask('/health');
    assert.deepEqual([away.status, away.headers.get('retry-after')], [503, '1']);
    const { error } = await json(away);
    assert.deepEqual([error.code, error.retryable], ['OVERLOADED', true]);
  });
}

test('a client that has said all hears the answer', async (t) => {
  const { port, authorization } = await proxied(t, 'nginx', 'offline-5x20');
  const body = JSON.stringify({ agent_id: 'default', input: 'hi', wait: true });
  const answer = await new Promise<string>((resolve, reject) => {
    let received = '';
    const socket = openSocket({ port, host: '127.0.0.1', allowHalfOpen: true });
    socket.on('data', (chunk) => {
      received += chunk.toString();
    });
    socket.on('end', () => {
      socket.destroy();
      resolve(received);
    });
    socket.on('error', reject);
    socket.end(
      requestText('POST', '/api/executions', [
        authorization,
        'Content-Type: application/json',
        'Connection: close',
        `Content-Length: ${body.length}`,
      ]) + body,
    );
  });
  assert.match(answer, /^HTTP\/1\.1 200 [\s\S]*"status":"completed"/);
});

test('by its defaults nginx speaks HTTP/1.0, which is answered with 505', async (t) => {
  const node = await startTestNode(t);
  const port = await startNginx(t, node.port, NGINX_DEFAULTS);
  assert.equal((await fetch(`http://127.0.0.1:${port}/health`)).status, 505);
});
