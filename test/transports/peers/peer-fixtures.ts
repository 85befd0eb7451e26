/** What the tests of services share: a tenant's agent, conversation and texts, and a service that answers over queues. */
import { randomUUID } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import type { Agent } from '../../../src/domain/agent-record.ts';
import { blankAgent } from '../../../src/domain/agent-rules.ts';
import type { DomainAction } from '../../../src/domain/domain-action.ts';
import { RefusalError, refusal } from '../../../src/domain/errors.ts';
import { agentIdSchema, sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../../src/domain/ids.ts';
import { serviceQueue, tierSubscription } from '../../../src/domain/queues.ts';
import { TIER_TABLE } from '../../../src/domain/tiers.ts';
import { createEmbeddings } from '../../../src/llm/embeddings.ts';
import { createCollections } from '../../../src/llm/retrieval/collections.ts';
import { createTools } from '../../../src/llm/tools/tool-set.ts';
import {
  type PeerData,
  type PeerMode,
  type PeerRequest,
  type PeerRequestType,
  type Peers,
  SERVICE_OF,
} from '../../../src/ports/peers.ts';
import type { Transport } from '../../../src/ports/transport.ts';
import { createEmbedded } from '../../../transports/peers/embedded.ts';
import { createPeers, type Embedded } from '../../../transports/peers/peers.ts';
import { createRemoteAgents } from '../../../transports/peers/remote-agents.ts';
import { createRemoteConversations } from '../../../transports/peers/remote-conversations.ts';
import { agentOf } from '../../actors/agent/agent-fixtures.ts';
import { quiet } from '../../support/quiet.ts';
import { memoryStore } from '../../support/stores.ts';
import { temporary } from '../../support/temporary.ts';
import { queue } from '../../support/transport.ts';

export const acme = tenantIdSchema.parse('acme');
export const globex = tenantIdSchema.parse('globex');
export const sales = agentIdSchema.parse('sales');
export const session = sessionIdSchema.parse('session-1');
export const task = taskIdSchema.parse('task-1');
export const clock = { now: () => Date.now() };
export const defaults = { provider: 'offline', model: 'offline-echo' } as const;

export const agentRecord = (more: Partial<Agent> = {}): Agent =>
  agentOf(1, { ...blankAgent('Sales', defaults), id: sales, ...more });

/** Acme has an agent, a conversation and a collection; globex has nothing. */
export function embeddedFor(t: TestContext): Embedded {
  const folder = temporary(t).path('collections');
  mkdirSync(`${folder}/acme/docs`, { recursive: true });
  writeFileSync(`${folder}/acme/docs/returns.md`, '# Returns\n\nGoods go back within thirty days.');
  const collections = createCollections({ folder, log: quiet });
  const tools = createTools({ clock });
  t.after(() => Promise.all([collections.close(), tools.close()]));
  return createEmbedded({
    agents: {
      get: async (tenantId, agentId) =>
        tenantId === acme && agentId === sales
          ? { ok: true, value: agentRecord() }
          : { ok: false, error: refusal('NOT_FOUND', { message: 'There is no such agent.' }) },
    },
    store: {
      session: async (tenantId, sessionId, { limit }) => {
        if (tenantId !== acme || sessionId !== session) return null;
        const messages = [
          { role: 'user', content: 'Hello', taskId: task, atMs: 1_000 },
          { role: 'assistant', content: 'Hi', taskId: task, atMs: 2_000 },
        ] as const;
        return { messages: messages.slice(-limit), hasMore: false };
      },
    },
    collections,
    embeddings: createEmbeddings({ apiKey: undefined, baseUrl: undefined }),
    tool: tools.own,
  });
}

/** Every service in one mode. */
export const allIn = (mode: PeerMode): Peers['modes'] => ({
  management: mode,
  conversation: mode,
  embedding: mode,
  query: mode,
  tool_registry: mode,
});

/** Nothing is answered inside the process. */
export const nobody: Embedded = {
  'management.get_agent_config': () => Promise.reject(new Error('not here')),
  'conversation.get_history': () => Promise.reject(new Error('not here')),
  'embedding.request': () => Promise.reject(new Error('not here')),
  'query.request': () => Promise.reject(new Error('not here')),
  'tool.execute': () => Promise.reject(new Error('not here')),
};

export const peersOver = (
  transport: Pick<Transport, 'request'>,
  mode: PeerMode,
  embedded: Embedded = nobody,
  more: Partial<Parameters<typeof createPeers>[0]> = {},
): Peers =>
  createPeers({
    modes: allIn(mode),
    transport,
    format: 'json',
    timeoutMs: 5_000,
    tierOf: async () => 'advance',
    embedded,
    clock,
    log: quiet,
    newId: randomUUID,
    nodeName: 'node-1',
    ...more,
  });

/** Services that are a function, and what they were asked. */
export function servedBy(answer: (request: PeerRequest) => PeerData | Promise<PeerData>) {
  const asked: PeerRequest[] = [];
  const ask = async (request: PeerRequest): Promise<PeerData> => {
    asked.push(request);
    return answer(request);
  };
  const peers: Peers = { modes: allIn('redis'), ask };
  return { asked, peers };
}

const remote = { tiers: TIER_TABLE, tierOf: async () => 'advance' as const, clock };
type RemoteAgentDeps = Parameters<typeof createRemoteAgents>[0];
type RemoteConversationDeps = Parameters<typeof createRemoteConversations>[0];

/** Agents that a service keeps. */
export const remoteAgents = (peers: Peers, more: Partial<RemoteAgentDeps> = {}) =>
  createRemoteAgents({ ...remote, peers, timeoutMs: 5_000, defaults, onExpired: () => {}, ...more });

/** Conversations that a service keeps, beside a store in memory. */
export const remoteConversations = (peers: Peers, more: Partial<RemoteConversationDeps> = {}) =>
  createRemoteConversations({
    ...{ ...remote, peers, store: memoryStore(), log: quiet },
    defaultTier: 'advance',
    format: 'json',
    ...more,
  });

/** How a service says what it has to say: over which queue, in which words. */
export type Reply = (request: DomainAction, data: Record<string, unknown>) => Promise<void>;

/** Answers on the queue that the request names, as services do. */
export const onItsQueue =
  (transport: Transport): Reply =>
  ({ callback_queue: named, ...request }, data) =>
    transport.send(
      queue(named ?? 'nowhere'),
      { ...request, action_id: randomUUID(), action_type: `${request.action_type}.response`, data },
      'json',
    );

/** Answers all services of a tier with what the embedded handlers answer; `heard` are the requests. */
export async function startServices(
  transport: Transport,
  embedded: Embedded,
  reply: Reply = onItsQueue(transport),
): Promise<readonly DomainAction[]> {
  const heard: DomainAction[] = [];
  const queues = new Set(Object.values(SERVICE_OF).map((service) => serviceQueue(service, 'advance')));
  const answer = async (action: DomainAction): Promise<Record<string, unknown>> => {
    const request: PeerRequest = {
      type: requestType(action.action_type),
      tenantId: action.tenant_id,
      sessionId: action.session_id,
      agentId: action.agent_id,
      taskId: action.task_id,
      data: action.data,
    };
    try {
      return { ...(await embedded[request.type](request, new AbortController().signal)) };
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error;
      return { success: false, error: { code: error.data.code, message: error.data.message } };
    }
  };
  await transport.consume(
    [...queues].map((name) => tierSubscription(name, 'advance')),
    async ({ action }) => {
      heard.push(action);
      await reply(action, await answer(action));
    },
    { credits: 10 },
  );
  return heard;
}

function requestType(name: string): PeerRequestType {
  const types = [
    'management.get_agent_config',
    'conversation.get_history',
    'embedding.request',
    'query.request',
    'tool.execute',
  ] as const;
  const type = types.find((one) => one === name);
  if (!type) throw new Error(`no service answers ${name}`);
  return type;
}
