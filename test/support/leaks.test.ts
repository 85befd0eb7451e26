/** The leak check sees what leaks, and waits for what is on its way out. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { leakFree, leftovers, resources } from './leaks.ts';

const SOON_MS = 100;

test('a timer that still runs is a leak until it is cleared', async (t) => {
  const before = resources();
  const timer = setInterval(() => undefined, 60_000);
  t.after(() => clearInterval(timer));

  assert.deepEqual(await leftovers(before, [], SOON_MS), ['1 × Timeout']);
  clearInterval(timer);
  assert.deepEqual(await leftovers(before), []);
});

test('a listening socket and its connections are leaks until they are closed', async () => {
  const before = resources();
  const server = createServer((socket) => socket.resume()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(address !== null && typeof address === 'object');
  const socket = connect(address.port, '127.0.0.1');
  await once(socket, 'connect');

  const left = await leftovers(before, [], SOON_MS);
  assert.ok(left.some((kind) => kind.includes('TCPServerWrap')));
  assert.ok(left.some((kind) => kind.includes('TCPSocketWrap')));
  socket.destroy();
  server.close();
  assert.deepEqual(await leftovers(before), []);
});

test('a worker is a leak until it has ended', async (t) => {
  const before = resources();
  const worker = new Worker('setInterval(() => {}, 1000)', { eval: true });
  t.after(() => worker.terminate());
  await once(worker, 'online');

  assert.ok((await leftovers(before, [], SOON_MS)).includes('1 × worker'));
  await worker.terminate();
  assert.deepEqual(await leftovers(before), []);
});

test('a child process is a leak until it has ended', async (t) => {
  const before = resources();
  const child = fork('/dev/null', { execArgv: ['-e', 'setInterval(() => {}, 1000)'], stdio: 'ignore' });
  t.after(() => child.kill('SIGKILL'));

  assert.ok((await leftovers(before, [], SOON_MS)).some((kind) => kind.includes('ProcessWrap')));
  child.kill('SIGKILL');
  assert.deepEqual(await leftovers(before), []);
});

test('what ends by itself soon is no leak', (t) => {
  leakFree(t);
  setTimeout(() => undefined, 20);
});

test('what the hooks of the test close is no leak, whenever they were registered', async (t) => {
  leakFree(t);
  const timer = setInterval(() => undefined, 60_000);
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => clearInterval(timer));
  t.after(() => server.close());
});
