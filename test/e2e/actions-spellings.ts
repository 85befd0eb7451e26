/** One run in the spellings of those who send it: what older services write, and what is written now. */
import { randomUUID } from 'node:crypto';
import { type Fields, naiveTime, packed, pydantic1, pydantic2, workOf } from '../support/action-client.ts';

export interface Spelling {
  readonly name: string;
  readonly queue?: string;
  readonly body: (fields: Fields) => string | Uint8Array;
  /** The action, given where it is answered. */
  readonly fields: (list: string) => Fields;
  /** What its reply names. */
  readonly session: string | RegExp;
  readonly conversation?: string;
}

const ids = () => ({
  action_id: randomUUID(),
  task_id: `task-${randomUUID()}`,
  correlation_id: randomUUID(),
});

export const SPELLINGS: readonly Spelling[] = [
  {
    name: 'execution.execute with parameters of its own',
    body: pydantic2,
    session: 'session-xyz',
    conversation: 'conv-123',
    fields: (callback_queue) => ({
      ...ids(),
      action_type: 'execution.execute',
      tenant_id: 'acme',
      tenant_tier: 'professional',
      data: {
        agent_id: 'default',
        input: 'Necesito información sobre productos',
        conversation_id: 'conv-123',
        session_id: 'session-xyz',
        tools_config: { web_search: true, calculator: true },
        execution_params: { max_iterations: 5, max_execution_time: 120 },
      },
      callback_queue,
    }),
  },
  {
    name: 'pydantic 1, payload and callback_queue_name, with nulls and naive times',
    queue: workOf('enterprise', 'high_priority'),
    body: pydantic1,
    session: 's-payload',
    fields: (callback_queue_name) => ({
      ...ids(),
      action_type: 'execution.agent_run',
      tenant_id: 'acme',
      tenant_tier: 'enterprise',
      session_id: null,
      user_id: null,
      trace_id: 'trace-1',
      execution_context: null,
      callback_queue_name,
      timeout: null,
      timestamp: naiveTime(),
      created_at: naiveTime(),
      metadata: null,
      payload: {
        agent_id: 'default',
        message: 'Necesito información sobre productos',
        session_id: 's-payload',
        conversation_id: null,
        tools_config: null,
        execution_params: { max_iterations: null, max_execution_time: null },
        user_info: null,
      },
    }),
  },
  {
    name: 'an execution context that fills the gaps',
    queue: workOf('free'),
    body: pydantic1,
    session: 's-context',
    fields: (callback_queue) => ({
      ...ids(),
      action_type: 'execution.agent_run',
      execution_context: {
        context_id: 'agent-default',
        tenant_id: 'acme',
        tenant_tier: 'professional',
        agent_id: 'default',
        session_id: 's-context',
      },
      data: { message: 'Necesito información sobre productos' },
      callback_queue,
      timestamp: naiveTime(),
    }),
  },
  {
    name: 'fields that lie flat beside the envelope',
    body: pydantic1,
    session: /^execution-/,
    fields: (callback_queue) => ({
      ...ids(),
      action_type: 'execution.agent_run',
      tenant_id: 'acme',
      agent_id: 'default',
      message: 'Necesito información sobre productos',
      user: { id: 'user_123', name: 'José' },
      callback_queue,
    }),
  },
  {
    name: 'msgpack',
    body: packed,
    session: 's-packed',
    fields: (callback_queue) => ({
      ...ids(),
      action_type: 'execution.agent_run',
      tenant_id: 'acme',
      tenant_tier: null,
      session_id: 's-packed',
      data: { agent_id: 'default', input: 'Necesito información sobre productos' },
      metadata: {},
      callback_queue,
      timeout: 60.5,
      timestamp: naiveTime(),
    }),
  },
];
