/** A session as its executions know it: a stream, and an actor that only remembers what it is told. */
import assert from 'node:assert/strict';
import type { SessionRef } from '../../../actors/registry.ts';
import type { ActorSystem } from '../../../actors/runtime/actor.ts';
import { createPacer } from '../../../actors/session/delta-pacer.ts';
import { createEventStream } from '../../../actors/session/event-stream.ts';
import type { SessionMessage } from '../../../actors/session/protocol.ts';
import type { TenantMessage } from '../../../actors/tenant/protocol.ts';
import type { Clock } from '../../../src/ports/telemetry.ts';
import { SESSION, TENANT } from '../fixtures.ts';

/** `told` is called with each message; `close` lets the stream's timer go. */
export function stubSession(actors: ActorSystem, clock: Clock, told: (message: SessionMessage) => void) {
  const pacer = createPacer();
  const place = { mailboxLimit: 100, restarts: { max: 0, withinMs: 1 } };
  const tenant = actors.spawn<null, TenantMessage, never>(
    null,
    { kind: 'tenant', behaviour: (state) => [state, []], ...place },
    { name: 'tenant', initial: null, interpret() {} },
  );
  const address = actors.spawn<null, SessionMessage, never>(
    null,
    {
      kind: 'session',
      behaviour(state, message) {
        told(message);
        return [state, []];
      },
      ...place,
    },
    { name: 'session', initial: null, interpret() {} },
  );
  const stream = createEventStream({
    tenantId: TENANT,
    epoch: 'e',
    clock,
    pacer,
    deltaWindowMs: 0,
    onFault: (error) => assert.fail(String(error)),
  });
  const ref: SessionRef = {
    tenant: { tenantId: TENANT, tenancy: 1, address: tenant, sessions: new Set() },
    sessionId: SESSION,
    address,
    stream,
    ...{ epoch: 1, unplaced: false, whenReleased: null },
    arriving: new Map(),
    execution: null,
  };
  return { ref, stream, close: () => pacer.close() };
}
