/** System prompts: templates with variables, and the agent that every tenant has. */
import type { AgentConfig, AgentType, Provider } from '../domain/agent.ts';
import { DEFAULT_AGENT_ID } from '../domain/ids.ts';
import type { ExecutionPlan } from '../ports/runner.ts';
import { cut } from './tool-calls.ts';

/** UTF-16 units of one variable's value in a prompt. */
export const MAX_VALUE_UNITS = 2_000;
/** UTF-16 units of the block that holds the context no variable asked for. */
export const MAX_CONTEXT_UNITS = 4_000;

const DEFAULT_PROMPT = `You are a helpful assistant. Answer in the language of the user, briefly and to the point.
Use the tools you have whenever they give a more certain answer than memory: the calculator for arithmetic, the clock for dates and times. Say so when you do not know. Today is {{today}}.`;

const VARIABLE = /\{\{\s*([A-Za-z0-9_.-]{1,100})\s*\}\}/g;

type PromptPlan = Pick<ExecutionPlan, 'tenantId' | 'sessionId' | 'tier' | 'context'> & {
  readonly agent: Pick<AgentConfig, 'systemPrompt' | 'id'>;
};

/**
 * Fills in a plan's system prompt. `{{name}}` and `{{name.part}}` stand for values of the context; `tenant_id`,
 * `session_id`, `agent_id`, `tier`, `today` and `now` are the node's own and win over the context; an unknown
 * variable becomes empty. Context that no variable names follows as one JSON block. Values are never expanded again.
 */
export function systemPrompt(plan: PromptPlan, nowMs: number): string {
  const template = plan.agent.systemPrompt;
  const used = new Set<string>();
  const filled = template.includes('{{')
    ? template.replace(VARIABLE, (_, path: string) => {
        const own = builtIn(path, plan, nowMs);
        if (own !== undefined) return own;
        used.add(path).add(path.split('.', 1)[0] ?? path);
        return bounded(stringify(lookUp(plan.context, path)), MAX_VALUE_UNITS);
      })
    : template;
  return filled + contextBlock(plan.context, used);
}

function builtIn(name: string, plan: PromptPlan, nowMs: number): string | undefined {
  switch (name) {
    case 'tenant_id':
      return plan.tenantId;
    case 'session_id':
      return plan.sessionId;
    case 'agent_id':
      return plan.agent.id;
    case 'tier':
      return plan.tier;
    case 'today':
      return new Date(nowMs).toISOString().slice(0, 10);
    case 'now':
      return new Date(nowMs).toISOString();
    default:
      return undefined;
  }
}

/** The value at a path of own properties. A key that itself contains dots comes first. */
function lookUp(context: Readonly<Record<string, unknown>>, path: string): unknown {
  if (Object.hasOwn(context, path)) return context[path];
  let value: unknown = context;
  for (const key of path.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    value = Reflect.get(value, key);
  }
  return value;
}

function stringify(value: unknown): string {
  if (value === undefined || value === null) return '';
  if (typeof value === 'string') return value;
  try {
    return JSON.stringify(value) ?? '';
  } catch {
    return ''; // cyclic, or a BigInt: neither comes out of JSON
  }
}

const bounded = (text: string, units: number): string =>
  text.length <= units ? text : `${cut(text, units - 1)}…`;

function contextBlock(context: Readonly<Record<string, unknown>>, used: ReadonlySet<string>): string {
  const rest = Object.entries(context).filter(([key]) => !used.has(key));
  if (rest.length === 0) return '';
  const block = bounded(stringify(Object.fromEntries(rest)), MAX_CONTEXT_UNITS);
  return block === '' ? '' : `\n\nContext of this conversation, as data (JSON):\n${block}`;
}

interface AgentDefaults {
  readonly models: { readonly defaultProvider: Provider; readonly defaultModel: string };
  readonly execution: { readonly defaultAgentType: AgentType };
}

/** The agent `default`, as the node's settings shape it. Its tools are cut to the tier by the plan. */
export function defaultAgent(settings: AgentDefaults): AgentConfig {
  return {
    id: DEFAULT_AGENT_ID,
    version: 1,
    type: settings.execution.defaultAgentType,
    provider: settings.models.defaultProvider,
    model: settings.models.defaultModel,
    temperature: 0.7,
    maxTokens: null,
    systemPrompt: DEFAULT_PROMPT,
    tools: ['calculator', 'current_time'],
    maxIterations: null,
    isActive: true,
  };
}
