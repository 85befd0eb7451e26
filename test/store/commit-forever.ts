/** A process for the crash test: commits turns to a SQLite file until it is killed and prints each that is stored. */
import { openStores } from '../../src/store/open.ts';
import { quiet } from '../support/quiet.ts';
import { endWith, outgoing } from './outgoing-contract.ts';
import { accept, named } from './records.ts';

const AT_ONCE = 16;
const [path = '', prefix = ''] = process.argv.slice(2);

const { conversations } = await openStores({ url: `sqlite:${path}`, log: quiet });

async function commitForever(worker: number): Promise<never> {
  for (let turn = 0; ; turn += 1) {
    const name = named(`${prefix}-${worker}-${turn}`, `${prefix}-${worker}`);
    await accept(conversations, name);
    process.stdout.write(`asked ${name.task}\n`);
    if (turn % 2 === 1) continue;
    await endWith(conversations, name, outgoing(`reply-${name.task}`, { answers: name.task }));
    process.stdout.write(`answered ${name.task}\n`);
  }
}

await Promise.all(Array.from({ length: AT_ONCE }, (_, worker) => commitForever(worker)));
