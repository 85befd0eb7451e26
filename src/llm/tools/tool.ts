/** What a tool is: a name, a schema for its arguments, and a function that ends with its signal. */
import { z } from 'zod';
import { RefusalError } from '../../domain/errors.ts';
import type { SessionId, TaskId, TenantId } from '../../domain/ids.ts';
import { problemText } from '../../domain/problems.ts';
import type { Tier } from '../../domain/tiers.ts';
import type { PeerData, PeerRequestType, Peers } from '../../ports/peers.ts';

export interface ToolContext {
  /** Aborted when the run is cancelled or out of time. */
  readonly signal: AbortSignal;
  readonly tenantId: TenantId;
  readonly sessionId: SessionId;
  readonly taskId: TaskId;
  /** The tenant's, as far as the caller knows it. */
  readonly tier?: Tier;
  /** What the agent may look things up in; absent: nothing. */
  readonly collections?: readonly string[];
}

/** A tool in the form that chat completion endpoints take. */
export interface ToolDefinition {
  readonly type: 'function';
  readonly function: {
    readonly name: string;
    readonly description: string;
    readonly parameters: Record<string, unknown>;
  };
}

/** Arguments that fit, as a function that runs the tool; or what is wrong with them, for the model to read. */
export type Prepared =
  | { readonly ok: true; readonly run: (context: ToolContext) => Promise<string> }
  | { readonly ok: false; readonly problem: string };

export interface Tool {
  readonly name: string;
  readonly definition: ToolDefinition;
  /** It does something that must not happen twice: a turn that has begun it does not run again. */
  readonly effects?: true;
  prepare(args: unknown): Prepared;
}

interface ToolSpec<S extends z.ZodType> {
  readonly name: string;
  readonly description: string;
  readonly schema: S;
  readonly effects?: true;
  /** Resolves to what the model reads. A rejection is fed back to it too, by its message alone. */
  run(args: z.infer<S>, context: ToolContext): Promise<string>;
}

/** Makes a tool: its JSON schema is made once, here. */
export function defineTool<S extends z.ZodType>(spec: ToolSpec<S>): Tool {
  const { $schema: _, ...parameters } = z.toJSONSchema(spec.schema);
  return {
    name: spec.name,
    ...(spec.effects ? { effects: true } : {}),
    definition: {
      type: 'function',
      function: { name: spec.name, description: spec.description, parameters },
    },
    prepare(args) {
      const parsed = spec.schema.safeParse(args);
      if (parsed.success) return { ok: true, run: (context) => spec.run(parsed.data, context) };
      return { ok: false, problem: problemText(parsed.error, 'input', 20) };
    },
  };
}

/** Asks a service on behalf of a tool. A refusal becomes an Error, of which the model reads the message. */
export async function askPeer(
  peers: Peers,
  type: PeerRequestType,
  data: PeerData,
  { tenantId, tier, sessionId, taskId, signal }: ToolContext,
): Promise<PeerData> {
  try {
    return await peers.ask({ type, tenantId, tier, sessionId, taskId, signal, data });
  } catch (error) {
    throw error instanceof RefusalError ? new Error(error.data.message) : error;
  }
}

/** The tools of a node. close() ends their workers; later calls of their tools fail. */
export interface ToolSet {
  readonly tools: readonly Tool[];
  close(): Promise<void>;
}
