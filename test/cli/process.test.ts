/** The command line as a process: what a shell sees of it. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

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

test('a whole export goes through a pipe before the process ends', async () => {
  const { code, out, err } = await nooble(['export', '--tenant', 'acme'], {
    DATABASE_URL: 'sqlite::memory:',
  });
  assert.equal(code, 0, err);
  assert.equal(out.trimEnd().split('\n').length, 2);
});
