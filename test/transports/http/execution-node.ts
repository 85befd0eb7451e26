/** A node with the execution routes over a scripted directory, whose clock of retries the test turns. */

import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import type { TestContext } from 'node:test';
import type { TurnRequest } from '../../../src/domain/turn.ts';
import { type ExecutionOptions, executionsOver } from '../../support/actors.ts';
import { answeredTurn, NOW_MS, openHttpNode, scriptedDirectory } from '../../support/http-node.ts';
import { logTo } from '../../support/quiet.ts';
import { createTestTime } from '../webhooks/webhook-receiver.ts';

export async function openExecutions(t: TestContext, more: Partial<ExecutionOptions> = {}) {
  const own = scriptedDirectory();
  const time = createTestTime();
  const events = new EventEmitter();
  const executions = executionsOver(own.directory, {
    clock: { now: () => NOW_MS },
    log: logTo(({ text }) => events.emit('logged', text)),
    timers: time.timers,
    ...more,
  });
  t.after(() => executions.close());
  const node = await openHttpNode(t, { deps: { directory: own.directory, executions } });
  const post = (body: unknown, path = '/api/executions') => node.ask(path, { body });
  const { script } = own;
  return {
    ...node,
    script,
    time,
    executions,
    post,
    said: async (count: number): Promise<TurnRequest> => {
      while (script.said.length < count) await once(script.events, 'said');
      const request = script.said[count - 1];
      assert.ok(request);
      return request;
    },
    /** Resolves once that is logged. */
    logged: async (text: string): Promise<void> => {
      while ((await once(events, 'logged'))[0] !== text);
    },
    detached: () => once(script.events, 'detached'),
    /** The turn's record is there, and its end is told. */
    answer({ taskId, sessionId }: TurnRequest, content = 'hello'): void {
      const turn = answeredTurn(taskId, { sessionId, content });
      script.putTurn(turn);
      const data = { content, role: 'assistant', execution_info: turn.info };
      script.emit('acme', sessionId, taskId, 'chat.response', data);
    },
    async batch(id: string) {
      return JSON.parse(await (await node.ask(`/api/executions/batch/${id}`)).text());
    },
  };
}

/** The least that an execution needs. */
export const RUN = { agent_id: 'a1', input: 'hi' };
