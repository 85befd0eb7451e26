/** Debian's nginx in front of a node, with the file of `deploy/` or another, in a folder of its own, ended by its pid. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { endsWith, freePort } from './processes.ts';
import { temporary } from './temporary.ts';

const DEPLOYED = readFileSync(new URL('../../deploy/nginx.conf', import.meta.url), 'utf8');

/** What nginx does where nobody says anything, but where it finds the node. */
export const NGINX_DEFAULTS =
  'events {}\nhttp { server { listen 80; location / { proxy_pass http://127.0.0.1:8000; } } }';

/** Starts it on a free port of loopback; of the file only addresses and paths are changed. It ends with the test. */
export async function startNginx(t: TestContext, nodePort: number, file = DEPLOYED): Promise<number> {
  const { folder, path, write } = temporary(t);
  const port = await freePort();
  mkdirSync(path('tmp'));
  const places = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const temporaries = places.map((place) => `${place}_temp_path ${folder}/tmp/${place};`).join(' ');
  const conf = file
    .replace('/run/nginx.pid', `${folder}/nginx.pid`)
    .replaceAll('/var/log/nginx', folder)
    .replace('listen 80;', `listen 127.0.0.1:${port};`)
    .replace('127.0.0.1:8000', `127.0.0.1:${nodePort}`)
    .replace('worker_processes auto;', 'worker_processes 1;')
    .replace('http {', `http { ${temporaries} ${file.includes('access_log') ? '' : 'access_log off;'}`);
  // Its worker writes into the folder of the test.
  const user = process.getuid?.() === 0 ? 'user root;\n' : '';
  const own = write(
    'nginx.conf',
    user + (file.includes('pid ') ? conf : `pid ${folder}/nginx.pid;\n${conf}`),
  );
  const args = ['-p', folder, '-e', `${folder}/error.log`, '-c', own];
  // As a daemon, so that it is no child that a test has left behind.
  const { status, stderr } = spawnSync('nginx', args, { env: { PATH: `${process.env.PATH}:/usr/sbin` } });
  assert.equal(status, 0, String(stderr));
  endsWith(t, Number(readFileSync(path('nginx.pid'), 'utf8')), 'SIGTERM');
  return port;
}
