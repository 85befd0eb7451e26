/** The in-process transport keeps the contract of transports. */
import { createMemoryTransport } from '../../transports/memory.ts';
import { quiet } from '../store/quiet.ts';
import { queue } from '../support/transport.ts';
import { transportContract } from './transport-contract.ts';

transportContract('memory', async (t, meter) => {
  const transport = createMemoryTransport(quiet, meter);
  t.after(() => transport.close());
  return {
    transport,
    meter,
    push: async (name, body) => transport.push(queue(name), body),
  };
});
