/** The worked example at the head of the runtime is run as it stands there. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import type { ActorSystem } from '../../../actors/runtime/actor.ts';
import { createActorSystem } from '../../../actors/runtime/actor-system.ts';
import { quiet } from '../../support/quiet.ts';
import { temporary } from '../../support/temporary.ts';

const RUNTIME = new URL('../../../actors/runtime/actor.ts', import.meta.url);

test('the example at the head of the runtime adds up', async (t) => {
  const block = /```ts\n([\s\S]*?) \* ```/.exec(readFileSync(RUNTIME, 'utf8'))?.[1] ?? '';
  const code = block.replace(/^ \* ?/gm, '');
  const file = temporary(t).write(
    'example.mts',
    `import { type ActorKind, type ActorSystem, type Behaviour, RESTARTS, type ReplyTo } from '${RUNTIME.href}';
export async function run(actors: ActorSystem) {
${code}
return total;
}`,
  );
  const actors = createActorSystem({ clock: { now: () => Date.now() }, log: quiet });
  t.after(() => actors.close());
  const example: { run(system: ActorSystem): Promise<number> } = await import(pathToFileURL(file).href);
  assert.equal(await example.run(actors), 5);
});
