/** Inboxes in one process keep the contract of inboxes. */
import { createMemoryInboxes } from '../../../transports/queue/memory-inboxes.ts';
import { leakFree } from '../../support/leaks.ts';
import { inboxContract } from './inbox-contract.ts';

inboxContract('memory', async (t) => {
  leakFree(t);
  const { open, setAway } = createMemoryInboxes();
  return {
    open() {
      const inboxes = open();
      t.after(() => inboxes.close());
      return inboxes;
    },
    setAway: async (isAway) => setAway(isAway),
  };
});
