/** What is replied to actions, and where to: pure rules. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  callbackProblem,
  endStatus,
  errorReply,
  isReplyType,
  replyAction,
  replyQueue,
  turnReply,
} from '../../src/domain/action-replies.ts';
import { type DomainAction, domainActionSchema } from '../../src/domain/domain-action.ts';
import { refusal } from '../../src/domain/errors.ts';
import { agentIdSchema, sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import type { TurnRecord } from '../../src/domain/turn.ts';

const request = (more: Partial<DomainAction> = {}): DomainAction => ({
  action_id: 'a-1',
  action_type: 'execution.agent_run',
  tenant_id: tenantIdSchema.parse('acme'),
  data: {},
  metadata: {},
  timestamp: '2026-01-02T03:04:05.678Z',
  ...more,
});

const turn = (more: Partial<TurnRecord> = {}): TurnRecord => ({
  taskId: taskIdSchema.parse('t1'),
  tenantId: tenantIdSchema.parse('acme'),
  sessionId: sessionIdSchema.parse('s1'),
  agentId: agentIdSchema.parse('a1'),
  status: 'completed',
  createdAtMs: 1,
  finishedAtMs: 2,
  content: 'yes',
  ...more,
});

const IDS = { agent_id: 'a1', conversation_id: 'c1', session_id: 's1' };

test('an ended turn is a callback with its text, or an error with its code', () => {
  const told = { conversationId: 'c1' };
  assert.deepEqual(turnReply(turn(), told), {
    type: 'execution.callback',
    data: { ...IDS, response: 'yes', status: 'success' },
  });
  const { content: _, ...silent } = turn({ status: 'cancelled' });
  assert.deepEqual(turnReply(silent, { ...told, index: 0 }).data, {
    ...IDS,
    index: 0,
    response: '',
    status: 'cancelled',
  });
  const error = refusal('EXECUTION_TIMEOUT', { retryAfterMs: 1.5, details: { max: 3 } });
  assert.deepEqual(turnReply(turn({ status: 'timeout', error }), told), {
    type: 'execution.error',
    data: {
      ...IDS,
      error: error.message,
      error_code: 'EXECUTION_TIMEOUT',
      error_details: { retryable: true, retry_after_ms: 2, details: { max: 3 } },
    },
  });
  assert.deepEqual(Object.keys(errorReply(refusal('POISON')).data), ['error', 'error_code', 'error_details']);
  assert.equal(endStatus('completed'), 'success');
  assert.equal(endStatus('timeout'), 'timeout');
});

test('a reply copies what ties it to its request, and is an action itself', () => {
  const asked = request({
    task_id: taskIdSchema.parse('t1'),
    correlation_id: 'c',
    trace_id: 't',
    tenant_tier: 'free',
    callback_queue: 'q',
    metadata: { secret: 1 },
    timeout: 3,
  });
  const body = { type: 'execution.callback', data: { a: 1 } };
  const reply = replyAction(asked, body, { id: 'a-1:reply', nowMs: 0 });
  assert.deepEqual(reply, {
    action_id: 'a-1:reply',
    action_type: 'execution.callback',
    task_id: 't1',
    tenant_id: 'acme',
    tenant_tier: 'free',
    correlation_id: 'c',
    trace_id: 't',
    data: { a: 1 },
    metadata: {},
    timestamp: '1970-01-01T00:00:00.000Z',
  });
  assert.ok(domainActionSchema.safeParse(reply).success);
  const own = replyAction(asked, body, {
    id: 'x',
    nowMs: 0,
    ...turn({ taskId: taskIdSchema.parse('t1:0') }),
  });
  assert.deepEqual([own.task_id, own.session_id, own.agent_id], ['t1:0', 's1', 'a1']);
});

test('replies go where they are awaited, and nowhere that is not the asker’s', () => {
  assert.equal(replyQueue(request()), undefined);
  for (const fine of [
    'orchestrator.callback',
    'orchestrator:acme:callback',
    'agent-management.notifications.acme',
    'x:responses:y:z',
    'execution_service:responses:agent_run:abc',
    'execution_service:responses:agent_run:globex:default',
    'execution_service:responses:agent_run:dead',
    'execution_service:responses:execution_service:free:default',
    'agent_execution_service:responses:query:callbacks',
    'execution_service:mine',
    'execution_service:free:default:mine',
    'nooble:replies:node',
  ])
    assert.equal(replyQueue(request({ callback_queue: fine })), fine);
  for (const wrong of [
    'orchestrator:globex:callback',
    'orchestrator:acme:callback:callback',
    'agent-management.tasks.globex',
    'agent-management.notifications.acme.globex',
    'orchestrator:responses:agent_run:callback',
    'agent-management.tasks.acme',
    'execution_service:free:default',
    'execution_service:enterprise:high_priority',
    'execution_service:free:default:dead',
    'agent_execution_service:free:callbacks',
    'nooble:inbox:node',
    'caller:dead',
  ]) {
    assert.notEqual(callbackProblem(request({ callback_queue: wrong })), null, wrong);
    assert.equal(replyQueue(request({ callback_queue: wrong })), undefined, wrong);
  }
  const chat = { action_type: 'chat.process', callback_queue: 'orchestrator:acme:callback' };
  assert.equal(replyQueue(request(chat)), undefined, 'this node reads there itself');
  assert.equal(callbackProblem(request(chat)), null);
});

test('replies are told from requests by their type', () => {
  for (const type of ['execution.callback', 'execution.error', 'a.b.response', 'execution.batch_completed'])
    assert.equal(isReplyType(type), true, type);
  for (const type of ['execution.agent_run', 'response', 'execution.callbacks', 'chat.status'])
    assert.equal(isReplyType(type), false, type);
});
