/** What the log says of a turn: whose it is and how it went, never what was said. */
import type { TurnRecord } from '../src/domain/conversation.ts';
import type { Log, SayReply, SayRequest } from '../src/ports.ts';

/** Ties a request to its turn. */
export function logSaid(log: Log, request: SayRequest, reply: SayReply): void {
  const ids = {
    tenant_id: request.caller.tenantId,
    session_id: request.sessionId,
    task_id: request.taskId,
    request_id: request.requestId,
  };
  if (reply.ok) log.debug(ids, 'turn accepted');
  else log.debug({ ...ids, code: reply.error.code }, 'turn refused');
}

/** At info only what went wrong: thousands of turns a second end well. */
export function logEnd(log: Log, { tenantId, sessionId, taskId, status, error }: TurnRecord): void {
  const ids = { tenant_id: tenantId, session_id: sessionId, task_id: taskId, status };
  if (error) log.info({ ...ids, code: error.code }, 'turn failed');
  else log.debug(ids, 'turn ended');
}
