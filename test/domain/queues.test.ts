/** Names of queues, as rules. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  afterFailure,
  callbackQueue,
  deadQueue,
  isReplyQueue,
  managementQueue,
  orchestratorQueue,
  responseQueue,
  serviceOf,
  serviceQueue,
  workQueue,
} from '../../src/domain/queues.ts';

test('queues are named as the protocol says', () => {
  assert.equal(workQueue('free', 'high_priority'), 'execution_service:free:high_priority');
  assert.equal(callbackQueue('advance'), 'agent_execution_service:advance:callbacks');
  assert.equal(orchestratorQueue('acme'), 'orchestrator:acme:callback');
  assert.equal(managementQueue('tasks', 'acme'), 'agent-management.tasks.acme');
  assert.equal(serviceQueue('tool_registry', 'enterprise'), 'tool_registry_service:enterprise:default');
  assert.equal(
    responseQueue('execution_service', 'query.request', 'c1'),
    'execution_service:responses:query.request:c1',
  );
  assert.equal(deadQueue('a:b'), 'a:b:dead');
  assert.throws(() => orchestratorQueue('two words'));
});

test('replies are known by their queue, and services by theirs', () => {
  assert.ok(isReplyQueue('a:responses:b:c'));
  assert.ok(!isReplyQueue('orchestrator:acme:callback'));
  assert.equal(serviceOf('query_service:free:default'), 'query_service');
  assert.equal(serviceOf('agent-management.tasks.acme'), 'agent-management');
  assert.equal(serviceOf('nooble:inbox:a'), 'nooble:inbox:a');
});

test('an action that fails is delivered three times', () => {
  assert.deepEqual([1, 2, 3, 4].map(afterFailure), ['redeliver', 'redeliver', 'dead', 'dead']);
});
