/** What is replied to actions, and where to: pure rules. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  callbackProblem,
  errorReply,
  isReplyType,
  replyAction,
  replyQueue,
  replyStatus,
  runStatus,
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
  const about = { conversation_id: sessionIdSchema.parse('c1') };
  assert.deepEqual(turnReply(turn(), about), {
    type: 'execution.callback',
    data: { ...IDS, response: 'yes', status: 'success' },
  });
  const { content: _, ...silent } = turn({ status: 'cancelled' });
  assert.deepEqual(turnReply(silent, { ...about, index: 0 }).data, {
    ...IDS,
    index: 0,
    response: '',
    status: 'cancelled',
  });
  const error = refusal('EXECUTION_TIMEOUT', { retryAfterMs: 1.5, details: { max: 3 } });
  assert.deepEqual(turnReply(turn({ status: 'timeout', error }), about), {
    type: 'execution.error',
    data: {
      ...IDS,
      partial: 'yes',
      error: error.message,
      error_code: 'EXECUTION_TIMEOUT',
      error_details: { retryable: true, retry_after_ms: 2, details: { max: 3 } },
    },
  });
  const thought = turn({ reasoning: 'Hm.' });
  assert.ok(!('reasoning' in turnReply(thought, about).data), 'only where it was asked for');
  for (const each of [thought, { ...thought, status: 'failed' as const, error }])
    assert.equal(Reflect.get(turnReply(each, { ...about, reasoning: true }).data, 'reasoning'), 'Hm.');
  assert.ok(!('reasoning' in turnReply(turn(), { ...about, reasoning: true }).data));
  assert.deepEqual(Object.keys(errorReply(refusal('POISON')).data), ['error', 'error_code', 'error_details']);
  assert.equal(replyStatus('completed'), 'success');
  assert.equal(replyStatus('timeout'), 'timeout');
  assert.equal(replyStatus('processing'), 'processing');
  assert.equal(runStatus(turn()), 'success');
  assert.equal(runStatus(turn({ status: 'processing' })), 'failed', 'a run without an end is no success');
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
  const error = refusal('TOO_LARGE');
  const body = { type: 'execution.callback', data: { success: false, error } } as const;
  const reply = replyAction(asked, body, { id: 'a-1:reply', nowMs: 0 });
  assert.deepEqual(reply, {
    action_id: 'a-1:reply',
    action_type: 'execution.callback',
    task_id: 't1',
    tenant_id: 'acme',
    tenant_tier: 'free',
    correlation_id: 'c',
    trace_id: 't',
    data: { success: false, error },
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

const EXTRA = new Set(['execution:ctx-1:free', 'old:responses:work:queue']);
const queueOf = (callback_queue: string) => replyQueue(request({ callback_queue }), EXTRA);

test('replies go where they are awaited', () => {
  assert.equal(replyQueue(request(), EXTRA), undefined);
  for (const fine of [
    'orchestrator.callback',
    'orchestrator:acme:callback',
    'agent-management.notifications.acme',
    'x:responses:y:z',
    'execution_service:responses:agent_run:abc',
    'execution_service:responses:execution.agent_run:abc',
    'execution_service:responses:agent_run:default',
    'execution_service:responses:agent_run:globex:default',
    'execution_service:responses:agent_run:dead',
    'execution_service:responses:execution_service:free:default',
    'execution_service:responses:agent_run:orchestrator:globex:callback',
    'agent_execution_service:responses:query:callbacks',
    'agent_execution_service:responses:free:callbacks',
    'execution_service:mine',
    'execution_service:free:default:mine',
    'execution_service:Free:default',
    'EXECUTION_SERVICE:free:default',
    'execution:ctx-2:free',
    'nooble:replies:node',
  ])
    assert.equal(queueOf(fine), fine);
  const chat = request({ action_type: 'chat.process', callback_queue: 'orchestrator:acme:callback' });
  assert.equal(replyQueue(chat, EXTRA), undefined, 'this node reads there itself');
  assert.equal(callbackProblem(chat, EXTRA), null);
});

test('replies go to no queue of another tenant, and to none that nodes take work from', () => {
  for (const wrong of [
    'orchestrator:globex:callback',
    'orchestrator:acme:callback:callback',
    'orchestrator:ACME:callback',
    'orchestrator:responses:agent_run:callback',
    'agent-management.tasks.globex',
    'agent-management.notifications.acme.globex',
    'agent-management.bulk-tasks.globex',
    'agent-management.tasks.acme',
    'agent-management.validation.acme',
    'execution_service:free:default',
    'execution_service:enterprise:high_priority',
    'execution_service:free:default:dead',
    'agent_execution_service:free:callbacks',
    'execution:ctx-1:free',
    'execution:ctx-1:free:dead',
    'old:responses:work:queue',
    'execution_service:responses:agent_run:abc:dead',
    'caller:dead',
    'nooble:inbox:node',
    'nooble:taken:node',
  ]) {
    assert.notEqual(callbackProblem(request({ callback_queue: wrong }), EXTRA), null, wrong);
    assert.equal(queueOf(wrong), undefined, wrong);
  }
});

test('replies are told from requests by their type', () => {
  for (const type of ['execution.callback', 'execution.error', 'a.b.response', 'execution.batch_completed'])
    assert.equal(isReplyType(type), true, type);
  for (const type of ['execution.agent_run', 'response', 'execution.callbacks', 'chat.status'])
    assert.equal(isReplyType(type), false, type);
});
