/** Actions that ask how a turn stands, or what another service knows: read anew each time they come. */
import type { ReplyBody } from '../../src/domain/action-replies.ts';
import type { CommandOf } from '../../src/domain/action-types.ts';
import { defined } from '../../src/domain/defined.ts';
import { type ErrorData, RefusalError, refusal } from '../../src/domain/errors.ts';
import { firstOf, readHistory } from '../../src/domain/peer-replies.ts';
import { messageBody, turnBody } from '../../src/domain/turn-schemas.ts';
import type { PeerRequest, Peers } from '../../src/ports/peers.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';
import type { ActionRequest, Replies } from './replies.ts';

interface ActionQueryDeps {
  readonly directory: Directory;
  readonly peers: Peers;
  readonly replies: Replies;
  readonly clock: Clock;
  readonly log: Log;
  /** Aborted: nobody waits any more. */
  readonly signal: AbortSignal;
}

type ActionQuery = CommandOf<'status' | 'agent-config' | 'history' | 'context'>;

/** The replies to queries. Each holds what was asked for, or a refusal. */
const REPLIES = {
  status: 'chat.status.response',
  'agent-config': 'execution.management.get_agent_config.response',
  history: 'execution.conversation.get_history.response',
  context: 'execution.conversation.get_context.response',
} as const satisfies Record<ActionQuery['type'], ReplyBody['type']>;

/** Answers queries. Nothing is read where nobody waits for the answer. */
export function createActionQueries(deps: ActionQueryDeps) {
  const { replies, log, signal } = deps;
  const read = createReader(deps);

  function refused({ type }: ActionQuery, error: unknown): ReplyBody {
    if (signal.aborted) throw new RefusalError(refusal('DRAINING'));
    const isKnown = error instanceof RefusalError;
    if (!isKnown) log.error({ err: error }, 'a query could not be answered');
    return {
      type: REPLIES[type],
      data: { success: false, error: isKnown ? error.data : refusal('INTERNAL') },
    };
  }

  return async function answerQuery(request: ActionRequest, query: ActionQuery): Promise<void> {
    if (request.queue === undefined) return;
    const body = await read(request, query).catch((error: unknown) => refused(query, error));
    await replies.send(request, body);
  };
}

/** Reads what queries ask for. Rejects with a RefusalError, or with what broke. */
function createReader({ directory, peers, clock, signal }: ActionQueryDeps) {
  const ask = (
    { action }: ActionRequest,
    more: Pick<PeerRequest, 'type' | 'data' | 'sessionId' | 'agentId'>,
  ) =>
    peers.ask({
      tenantId: action.tenant_id,
      tier: action.tenant_tier,
      userId: action.user_id,
      taskId: action.task_id,
      traceId: action.trace_id,
      ...defined({ timeoutMs: action.timeout === undefined ? undefined : Math.ceil(action.timeout * 1000) }),
      signal,
      ...more,
    });

  async function messages(request: ActionRequest, query: CommandOf<'history' | 'context'>) {
    const { sessionId, limit } = query;
    const data = { session_id: sessionId, limit };
    const reply = await ask(request, { type: 'conversation.get_history', sessionId, data });
    const found = readHistory(reply, limit, clock.now());
    if (!found) throw new RefusalError(unread('messages'));
    return found.map(messageBody);
  }

  return async function read(request: ActionRequest, query: ActionQuery): Promise<ReplyBody> {
    const { tenant_id: tenantId } = request.action;
    switch (query.type) {
      case 'status': {
        const turn = await directory.turn(tenantId, query.taskId);
        if (!turn.ok) throw new RefusalError(turn.error);
        return { type: REPLIES.status, data: turnBody(turn.value) };
      }
      case 'agent-config': {
        const { agentId } = query;
        const data = { agent_id: agentId };
        const reply = await ask(request, { type: 'management.get_agent_config', agentId, data });
        const config = firstOf(reply, ['agent_config', 'config', 'agent']);
        if (config === undefined) throw new RefusalError(unread('agent_config'));
        return { type: REPLIES['agent-config'], data: { success: true, agent_config: config } };
      }
      case 'history':
        return { type: REPLIES.history, data: { success: true, messages: await messages(request, query) } };
      case 'context': {
        const found = await messages(request, query);
        const context = {
          session_id: query.sessionId,
          tenant_id: tenantId,
          messages: found,
          message_count: found.length,
        };
        return { type: REPLIES.context, data: { success: true, context } };
      }
    }
  };
}

const unread = (field: string): ErrorData =>
  refusal('INTERNAL', { message: `The service's reply holds no ${field}.` });
