/** A consumer in a process of its own, to be killed in mid work: takes from one queue and never finishes anything. */

import { tierLane } from '../../src/domain/queues.ts';
import { openRedisTransport } from '../../transports/redis/transport.ts';
import { quiet } from '../store/quiet.ts';
import { counting, queue } from './transport.ts';

const [url = '', name = '', credits = '1'] = process.argv.slice(2);
const lease = { ttlMs: 400, renewMs: 100 };
const transport = await openRedisTransport({ url, nodeId: 'victim', log: quiet, meter: counting(), lease });
await transport.consume(
  [tierLane(queue(name), 'free')],
  ({ action }) => {
    process.stdout.write(`${String(action.data.n)}\n`);
    return new Promise(() => {});
  },
  { credits: Number(credits) },
);
process.stdout.write('taking\n');
