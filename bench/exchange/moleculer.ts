/** Moleculer: `broker.call` between two brokers on its Redis transporter, which publishes and keeps nothing. */
import { ServiceBroker } from 'moleculer';
import type { Exchange } from './contender.ts';
import { answerIn, fieldsOf, looseReplyTo, question } from './messages.ts';

const TIMEOUT_MS = 20_000;

const broker = (nodeID: string, transporter: string): ServiceBroker =>
  new ServiceBroker({ nodeID, transporter, logger: false, requestTimeout: TIMEOUT_MS });

export const moleculer: Exchange = {
  async asker(url) {
    const asking = broker('asker', url);
    await asking.start();
    await asking.waitForServices('bench', TIMEOUT_MS);
    return { ask: async () => answerIn(await asking.call('bench.answer', question())) };
  },
  async answerer(url) {
    const answering = broker('answerer', url);
    answering.createService({
      name: 'bench',
      actions: { answer: ({ params }) => looseReplyTo(fieldsOf(params)) },
    });
    await answering.start();
  },
};
