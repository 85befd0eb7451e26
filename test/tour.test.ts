/** The README's tour along one chat message is short, true and whole: a message is run, and V8 tells whose code took part. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { filesThatRun } from './support/coverage.ts';
import { startScene } from './support/node.ts';
import { say } from './support/stub-model.ts';

const root = new URL('../', import.meta.url);
const readme = readFileSync(new URL('README.md', root), 'utf8');
const section = /\n## Along one chat message\n([\s\S]*?)\n## /.exec(readme)?.[1] ?? '';
const stops = [...section.matchAll(/^\d+\. \[`[^`]+`\]\(([^)]+)\)/gm)].map((match) => match[1] ?? '');

/** At most so many files are named, and so many run. */
const MAX_STOPS = 16;
const MAX_FILES = 75;
/** Helpers of every path: how bytes are read, and what is counted and logged. */
const ASIDE = /^(transports\/wire|src\/telemetry)\//;

test('the tour names few files, and all of them are there', () => {
  assert.ok(stops.length > 5 && stops.length <= MAX_STOPS, `${stops.length} stops`);
  assert.equal(new Set(stops).size, stops.length);
  for (const stop of stops) assert.ok(existsSync(new URL(stop, root)), stop);
});

test('each stop takes part in a message, and nothing takes part outside the folders that the tour names', async (t) => {
  const { chat, stub } = await startScene(t);
  stub.byDefault(() => say('Hello there.'));
  const client = await chat('acme', 's1');
  await client.turn('The session, its tenant and its agent come to life.');
  const files = await filesThatRun(async () => {
    await client.turn('This one is looked at.');
  });
  for (const stop of stops) assert.ok(files.includes(stop), `${stop} has no part in a message`);
  const folders = stops.map((stop) => dirname(stop));
  // A folder stands for what is below it, but `actors` itself has the rooms beside its own files.
  const isNamed = (file: string): boolean =>
    folders.some(
      (folder) => dirname(file) === folder || (folder.includes('/') && file.startsWith(`${folder}/`)),
    );
  assert.deepEqual(
    files.filter((file) => !isNamed(file) && !ASIDE.test(file)),
    [],
  );
  t.diagnostic(`${files.length} files run for one chat message`);
  assert.ok(files.length <= MAX_FILES, `${files.length} files run`);
});
