/** Actions that ask how something stands, or what another service knows: read anew each time they come. */
import { type ReplyBody, refusedResponse } from '../../src/domain/action-replies.ts';
import type { Command } from '../../src/domain/action-types.ts';
import { type ErrorData, RefusalError, refusal } from '../../src/domain/errors.ts';
import type { SessionId } from '../../src/domain/ids.ts';
import { firstOf, readHistory } from '../../src/domain/peer-replies.ts';
import { messageBody, turnBody } from '../../src/domain/turn-schemas.ts';
import type { PeerRequest, Peers } from '../../src/ports/peers.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';
import type { Replies, Request } from './replies.ts';

export interface ActionQueryDeps {
  readonly directory: Directory;
  readonly peers: Peers;
  readonly replies: Replies;
  readonly clock: Clock;
  readonly log: Log;
  /** Aborted: nobody waits any more. */
  readonly signal: AbortSignal;
}

export type ActionQuery = Extract<Command, { type: 'status' | 'agent-config' | 'history' | 'context' }>;
type Data = ReplyBody['data'];

/** Answers questions. Nothing is read where nobody waits for the answer. */
export function createActionQueries(deps: ActionQueryDeps) {
  const { directory, peers, replies, clock, log, signal } = deps;

  /** What every request to a service says of who asks. */
  const asker = ({ action }: Request): Omit<PeerRequest, 'type' | 'data'> => ({
    tenantId: action.tenant_id,
    tier: action.tenant_tier,
    userId: action.user_id,
    taskId: action.task_id,
    traceId: action.trace_id,
    ...(action.timeout === undefined ? {} : { timeoutMs: Math.ceil(action.timeout * 1000) }),
    signal,
  });

  async function messages(
    request: Request,
    sessionId: SessionId,
    limit: number,
  ): Promise<readonly unknown[]> {
    const data = { session_id: sessionId, limit };
    const reply = await peers.ask({
      ...asker(request),
      type: 'conversation.get_history',
      sessionId,
      data,
    });
    const read = readHistory(reply, limit, clock.now());
    if (!read) throw new RefusalError(unread('messages'));
    return read.map(messageBody);
  }

  async function dataOf(request: Request, question: ActionQuery): Promise<Data> {
    const { tenant_id: tenantId } = request.action;
    switch (question.type) {
      case 'status': {
        const turn = await directory.turn(tenantId, question.taskId);
        if (!turn.ok) throw new RefusalError(turn.error);
        return turnBody(turn.value);
      }
      case 'agent-config': {
        const { agentId } = question;
        const reply = await peers.ask({
          ...asker(request),
          type: 'management.get_agent_config',
          agentId,
          data: { agent_id: agentId },
        });
        const config = firstOf(reply, ['agent_config', 'config', 'agent']);
        if (config === undefined) throw new RefusalError(unread('agent_config'));
        return { success: true, agent_config: config };
      }
      case 'history':
        return { success: true, messages: await messages(request, question.sessionId, question.limit) };
      case 'context': {
        const { sessionId, limit } = question;
        const found = await messages(request, sessionId, limit);
        const context = { session_id: sessionId, tenant_id: tenantId, messages: found };
        return { success: true, context: { ...context, message_count: found.length } };
      }
    }
  }

  return async function answerQuestion(request: Request, question: ActionQuery): Promise<void> {
    if (request.queue === undefined) return;
    const { action_type: type } = request.action;
    const body = await dataOf(request, question).then(
      (data): ReplyBody => ({ type: `${type}.response`, data }),
      (error: unknown) => refusedResponse(type, toldOf(error)),
    );
    await replies.send(request, body);
  };

  /** What is known of a failure; what broke is logged, and said in our words. */
  function toldOf(error: unknown): ErrorData {
    if (signal.aborted) throw new RefusalError(refusal('DRAINING'));
    if (error instanceof RefusalError) return error.data;
    log.error({ err: error }, 'a question could not be answered');
    return refusal('INTERNAL');
  }
}

const unread = (field: string): ErrorData =>
  refusal('INTERNAL', { message: `The service's reply holds no ${field}.` });
