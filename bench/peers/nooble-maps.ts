/** Our node with its stores in plain Maps: what keeping a turn costs when nothing has to outlive the process. */
import { startNode } from '../../src/node.ts';
import { parseSettings } from '../../src/settings.ts';
import { createMemoryStore } from '../../test/support/memory-store/store.ts';
import { storesAround } from '../../test/support/stores.ts';

const parsed = parseSettings(process.env);
if (!parsed.ok) throw new Error(parsed.problems.join('\n'));

const node = await startNode(parsed.settings, { stores: storesAround(createMemoryStore()) });
process.once('SIGTERM', () => {
  node.drain().finally(() => process.exit(0));
});
process.once('disconnect', () => process.exit(0));
