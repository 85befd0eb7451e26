/** The command line as a process: what a shell sees of it. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { symlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { temporary } from '../support/temporary.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

const nooble = (words: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  new Promise<{ code: number; out: string; err: string }>((resolve) => {
    const args = ['--disable-warning=ExperimentalWarning', MAIN, ...words];
    execFile(process.execPath, args, { env: { ...env } }, (error, out, err) =>
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, out, err }),
    );
  });

test('help is 0 and on the standard output, misuse is 2 and on the other, neither starts a node', async () => {
  const [help, misuse] = await Promise.all([nooble(['help']), nooble(['fly'])]);
  assert.deepEqual([help.code, help.err], [0, '']);
  assert.match(help.out, /nooble doctor/);
  assert.deepEqual([misuse.code, misuse.out], [2, '']);
  assert.match(misuse.err, /^nooble: There is no command fly\./);
});

const SCRIPT = fileURLToPath(new URL('../../src/cli/nooble.sh', import.meta.url));
const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

const shell = (file: string, args: readonly string[], cwd: string, database: string) =>
  new Promise<{ code: number; out: string; err: string }>((resolve) => {
    const home = dirname(fileURLToPath(database.replace('sqlite:', 'file:')));
    const env = { PATH: process.env.PATH, HOME: home, DATABASE_URL: database };
    execFile(file, args, { env, cwd }, (error, out, err) =>
      resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, out, err }),
    );
  });

test('what the command of its own exports, and what npm run prints before that, is imported', async (t) => {
  const { folder, database, write, path } = temporary(t);
  symlinkSync(SCRIPT, path('nooble'));
  const plain = await shell(path('nooble'), ['export', '--tenant', 'acme'], folder, database);
  assert.equal(plain.code, 0, plain.err);
  assert.match(plain.out, /^\{"type":"nooble-export"/);
  const words = ['run', 'nooble', '--', 'export', '--tenant', 'acme'];
  const banner = await shell('npm', words, PROJECT, database);
  assert.equal(banner.code, 0, banner.err);
  assert.match(banner.out, /^\n> /);
  for (const text of [plain.out, banner.out, `\ufeff${plain.out}`, banner.out.replaceAll('\n', '\r\n')]) {
    const file = write('export.ndjson', text);
    const taken = await nooble(['import', '-f', file], { DATABASE_URL: database });
    assert.equal(taken.code, 0, taken.err);
  }
  const late = write('late.ndjson', `${plain.out.trimEnd()}\n> a line too many\n`);
  assert.equal((await nooble(['import', '-f', late], { DATABASE_URL: database })).code, 2);
});

test('a whole export goes through a pipe before the process ends', async () => {
  const { code, out, err } = await nooble(['export', '--tenant', 'acme'], {
    DATABASE_URL: 'sqlite::memory:',
  });
  assert.equal(code, 0, err);
  assert.equal(out.trimEnd().split('\n').length, 2);
});
