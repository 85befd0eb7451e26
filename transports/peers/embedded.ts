/** What the node answers itself where no service stands beside it: the same requests and replies as over Redis. */

import { z } from 'zod';
import { isPartial } from '../../src/domain/conversation.ts';
import { RefusalError, refusalError } from '../../src/domain/errors.ts';
import { agentIdSchema, sessionIdSchema } from '../../src/domain/ids.ts';
import { problemText } from '../../src/domain/problems.ts';
import type { Tool } from '../../src/llm/tools/tool.ts';
import type { AgentManagement } from '../../src/ports/management.ts';
import type { Collections, Embeddings, PeerData, PeerRequest } from '../../src/ports/peers.ts';
import type { Store } from '../../src/ports/store.ts';
import type { Embedded } from './peers.ts';

interface EmbeddedOptions {
  readonly agents: Pick<AgentManagement, 'get'>;
  readonly store: Pick<Store, 'session'>;
  readonly collections: Collections;
  readonly embeddings: Embeddings;
  /** A tool of this node's own. */
  readonly tool: (name: string) => Tool | undefined;
}

const MAX_HISTORY = 1_000;
const MAX_TEXTS = 256;
const MAX_TEXT_UNITS = 32_000;
const MAX_QUERY_UNITS = 4_000;
const MAX_COLLECTIONS = 100;
const MAX_PASSAGES = 50;
const PASSAGES = 5;

const count = z.number().int().positive();
const agentSchema = z.object({ agent_id: agentIdSchema.optional() });
const historySchema = z.object({
  session_id: sessionIdSchema.optional(),
  limit: count.max(MAX_HISTORY).default(MAX_HISTORY),
});
const textSchema = z.string().min(1).max(MAX_TEXT_UNITS);
const embeddingSchema = z.union([
  z.object({ texts: z.array(textSchema).min(1).max(MAX_TEXTS) }),
  z.object({ text: textSchema }).transform(({ text }) => ({ texts: [text] })),
]);
const querySchema = z.object({
  query: z.string().min(1).max(MAX_QUERY_UNITS),
  collections: z.array(z.string()).max(MAX_COLLECTIONS),
  limit: count.max(MAX_PASSAGES).optional(),
  top_k: count.max(MAX_PASSAGES).optional(),
});
const toolSchema = z.object({
  tool: z.string().min(1).max(64),
  args: z.record(z.string(), z.unknown()).default({}),
});

/** Answers to every request, by type. They reject with a RefusalError where the service would refuse. */
export const createEmbedded = (options: EmbeddedOptions): Embedded => ({
  'management.get_agent_config': async (request) => {
    const agentId = parsed(agentSchema, request).agent_id ?? request.agentId;
    if (!agentId) throw missing('agent_id');
    const reply = await options.agents.get(request.tenantId, agentId);
    if (!reply.ok) throw new RefusalError(reply.error);
    return { success: true, agent_config: reply.value };
  },
  'conversation.get_history': async (request) => {
    const { session_id, limit } = parsed(historySchema, request);
    const sessionId = session_id ?? request.sessionId;
    if (!sessionId) throw missing('session_id');
    const page = await options.store.session(request.tenantId, sessionId, { limit, before: undefined });
    if (!page) throw refusalError('NOT_FOUND', { message: 'There is no conversation of that session.' });
    const messages = page.messages
      .filter((message) => !isPartial(message))
      .map(({ role, content, taskId, atMs }) => ({
        role,
        content,
        task_id: taskId,
        created_at: new Date(atMs).toISOString(),
      }));
    return { success: true, messages };
  },
  'embedding.request': async (request, signal) => {
    const { texts } = parsed(embeddingSchema, request);
    const embeddings = await options.embeddings.embed(texts, signal);
    return { success: true, embeddings, model: options.embeddings.model };
  },
  'query.request': async (request, signal) => {
    const { query, collections, limit, top_k } = parsed(querySchema, request);
    const question = { text: query, collections, limit: limit ?? top_k ?? PASSAGES, signal };
    return { success: true, results: await options.collections.query(request.tenantId, question) };
  },
  'tool.execute': (request, signal) => execute(options, request, signal),
});

/** What a tool throws is an answer: the model reads it. */
async function execute(
  options: EmbeddedOptions,
  request: PeerRequest,
  signal: AbortSignal,
): Promise<PeerData> {
  const { tool: name, args } = parsed(toolSchema, request);
  const { tenantId, sessionId, taskId } = request;
  if (!sessionId || !taskId) throw missing('session_id and task_id');
  const tool = options.tool(name);
  if (!tool) throw refusalError('NOT_FOUND', { message: `There is no tool ${name}.` });
  const prepared = tool.prepare(args);
  if (!prepared.ok) throw refusalError('INVALID_REQUEST', { message: prepared.problem });
  try {
    return { success: true, result: await prepared.run({ signal, tenantId, sessionId, taskId }) };
  } catch (error) {
    if (error instanceof RefusalError) throw error;
    const message = error instanceof Error ? error.message : 'The tool failed.';
    return { success: false, error: { code: 'INTERNAL', message } };
  }
}

/** The request's data; throws INVALID_REQUEST. */
function parsed<T>(schema: z.ZodType<T>, { type, data }: PeerRequest): T {
  const result = schema.safeParse(data);
  if (result.success) return result.data;
  const problem = problemText(result.error, 'data', 1);
  throw refusalError('INVALID_REQUEST', { message: `${type} is malformed: ${problem}.` });
}

const missing = (what: string): RefusalError =>
  refusalError('INVALID_REQUEST', { message: `${what} must be given.` });
