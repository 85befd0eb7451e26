/** Debian's Caddy in front of a node, with the file of `deploy/`, in a folder of its own, ended by its pid. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { endsWith, freePort } from './processes.ts';
import { temporary } from './temporary.ts';
import { until } from './until.ts';

const DEPLOYED = readFileSync(new URL('../../deploy/Caddyfile', import.meta.url), 'utf8');

/** Starts it on a free port of loopback, without TLS; of the file only addresses are changed. It ends with the test. */
export async function startCaddy(t: TestContext, nodePort: number): Promise<number> {
  const { folder, path, write } = temporary(t);
  const port = await freePort();
  const file = DEPLOYED.replace('{\n\tservers', '{\n\tadmin off\n\tservers')
    .replace('nooble.example.com {', `http://:${port} {\n\tbind 127.0.0.1`)
    .replace('127.0.0.1:8000', `127.0.0.1:${nodePort}`);
  const files = ['--config', write('Caddyfile', file), '--pidfile', path('caddy.pid')];
  // As a daemon, so that it is no child that a test has left behind; this returns when it listens.
  const { status } = spawnSync('caddy', ['start', '--adapter', 'caddyfile', ...files], {
    env: { PATH: process.env.PATH, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder },
    stdio: 'ignore',
  });
  assert.equal(status, 0, 'Caddy does not start');
  // Which may be before it has written its pid.
  await until(
    'the pid',
    () => existsSync(path('caddy.pid')) && readFileSync(path('caddy.pid'), 'utf8') !== '',
  );
  endsWith(t, Number(readFileSync(path('caddy.pid'), 'utf8')), 'SIGKILL');
  return port;
}
