/** Asks a node to run an agent, as a service does (PROTOCOL 4): `execution.agent_run` by LPUSH, its callback by BRPOP. */
import { randomUUID } from 'node:crypto';
import { workQueue } from '../../src/domain/queues.ts';
import type { Exchange } from './contender.ts';
import { openListAsker } from './lists.ts';
import { type Fields, fieldsOf } from './messages.ts';

export const RUN_QUEUE = workQueue('enterprise', 'default');

/** Without a session: each run has one of its own, and no history. */
export const agentRunAction = (actionId: string): Fields => ({
  action_id: actionId,
  action_type: 'execution.agent_run',
  task_id: randomUUID(),
  tenant_id: 'bench',
  tenant_tier: 'enterprise',
  user_id: 'user-0001',
  data: { agent_id: 'default', input: 'Say something.' },
  metadata: { source: 'bench' },
  timestamp: new Date().toISOString(),
});

/** The answer in an `execution.callback`. Throws with the code of an `execution.error`. */
export function responseIn({ action_type: type, data }: Fields): string {
  const { response, error_code: code, error } = fieldsOf(data);
  if (type !== 'execution.callback') throw new Error(`${type}: ${code}: ${error}`);
  if (typeof response !== 'string') throw new Error(`no response: ${JSON.stringify(data)}`);
  return response;
}

export const agentRun: Exchange = {
  asker: (url) =>
    openListAsker(url, {
      queue: RUN_QUEUE,
      compose: () => agentRunAction(randomUUID()),
      read: responseIn,
    }),
};
