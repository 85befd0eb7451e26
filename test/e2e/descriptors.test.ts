/** Strangers who open connections until the process has no descriptor left: it says so, and goes on. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { killed } from '../support/processes.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const LIMIT = 192;

/** Clock ticks of 10 ms that the process has computed. */
function ticksOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return Number(fields[11]) + Number(fields[12]);
}

test('a node without free descriptors says so, does not turn in circles, and answers its probe', async (t) => {
  const env = { PATH: process.env.PATH, PORT: '0', DATABASE_URL: 'sqlite::memory:' };
  const script = `ulimit -n ${LIMIT}; exec "$0" --disable-warning=ExperimentalWarning "$1"`;
  const child = spawn('sh', ['-c', script, process.execPath, MAIN], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => killed(child));
  const lines: string[] = [];
  const reader = createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  const said = async (text: string): Promise<string> => {
    for (;;) {
      const found = lines.find((line) => line.includes(text));
      if (found !== undefined) return found;
      assert.equal(child.exitCode, null, lines.join('\n'));
      await delay(50);
    }
  };
  const url: string = JSON.parse(await said('"listening"')).url;
  const port = Number(new URL(url).port);
  const isHealthy = (): Promise<boolean> =>
    fetch(`${url}/health`, { headers: { connection: 'close' } }).then(
      ({ ok }) => ok,
      () => false,
    );
  assert.ok(await isHealthy());

  const strangers: Socket[] = Array.from({ length: LIMIT * 2 }, () =>
    connect(port, '127.0.0.1').on('error', () => {}),
  );
  t.after(() => {
    for (const stranger of strangers) stranger.destroy();
    reader.close();
  });
  await said('file descriptors run out');
  await delay(500);
  const before = ticksOf(child.pid ?? 0);
  await delay(2_000);
  assert.ok(ticksOf(child.pid ?? 0) - before < 100, 'it computes, though nobody asks for anything');
  while (!(await isHealthy())) await delay(200);
  assert.equal(lines.filter((line) => line.includes('file descriptors run out')).length <= 3, true);
  const answer = await fetch(`${url}/api/chat/send`, {
    method: 'POST',
    headers: { 'x-tenant-id': 'acme', 'content-type': 'application/json' },
    body: JSON.stringify({ message: 'Hi.' }),
  });
  assert.equal(answer.status, 202);
});
