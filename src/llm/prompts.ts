/** System prompts: templates whose variables are filled in from the context of a turn. */
import type { AgentConfig } from '../domain/agent.ts';
import { cut } from '../domain/cut.ts';
import { type ErrorData, refusal } from '../domain/errors.ts';
import type { ExecutionPlan } from '../ports/runner.ts';

/** UTF-16 units of one variable's value in a prompt. */
export const MAX_VALUE_UNITS = 32_000;
/** UTF-16 units of a prompt whose variables are filled in; a model with a small window has less. */
export const MAX_PROMPT_UNITS = 262_144;
/** Units that a token of a model's window stands for, at best. */
const UNITS_A_TOKEN = 4;
/** UTF-16 units of the block that holds the context no variable asked for. */
export const MAX_CONTEXT_UNITS = 4_000;

/** Behind a backslash it is no variable, but text as it stands. */
const VARIABLE = /\\?\{\{\s*([A-Za-z0-9_.-]{1,100})\s*\}\}/g;

type PromptPlan = Pick<ExecutionPlan, 'tenantId' | 'sessionId' | 'tier' | 'context'> & {
  readonly agent: Pick<AgentConfig, 'systemPrompt' | 'id'>;
};

/**
 * Fills in a plan's system prompt. `{{name}}` and `{{name.part}}` stand for values of the context; `tenant_id`,
 * `session_id`, `agent_id`, `tier`, `today` and `now` are the node's own and win over the context; an unknown
 * variable becomes empty, and `\{{name}}` stands as `{{name}}`. Context that no variable names follows as one JSON
 * block. Values are never expanded again.
 */
export function systemPrompt(plan: PromptPlan, nowMs: number): string {
  const template = plan.agent.systemPrompt;
  const used = new Set<string>();
  const filled = template.includes('{{')
    ? template.replace(VARIABLE, (all, path: string) => {
        if (all.startsWith('\\')) return all.slice(1);
        const own = builtIn(path, plan, nowMs);
        if (own !== undefined) return own;
        used.add(path).add(path.split('.', 1)[0] ?? path);
        return bounded(stringify(lookUp(plan.context, path)), MAX_VALUE_UNITS);
      })
    : template;
  return filled + contextBlock(plan.context, used);
}

/** Why a template can not be filled in from a context for a model of that window, in tokens; null: it can. */
export function promptProblem(
  template: string,
  window: number,
  contextOf: () => Readonly<Record<string, unknown>>,
): ErrorData | null {
  if (!template.includes('{{')) return null;
  const context = contextOf();
  const most = Math.min(MAX_PROMPT_UNITS, window * UNITS_A_TOKEN);
  const lengths = new Map<string, number>();
  let units = template.replace(VARIABLE, '').length;
  // A template that is long by itself was taken when its agent was saved.
  const limit = Math.max(most, units);
  for (const [all, path = ''] of template.matchAll(VARIABLE)) {
    if (all.startsWith('\\') || OWN.has(path)) continue;
    const length = lengths.get(path) ?? stringify(lookUp(context, path)).length;
    lengths.set(path, length);
    units += length;
    if (length > MAX_VALUE_UNITS)
      return tooLong(`context.${path}`, 'a variable of a prompt', MAX_VALUE_UNITS);
    if (units > limit) return tooLong(`context.${path}`, 'a prompt, filled in,', most);
  }
  return null;
}

/** Variables that are the node's own. */
const OWN: ReadonlySet<string> = new Set(['tenant_id', 'session_id', 'agent_id', 'tier', 'today', 'now']);

const tooLong = (field: string, what: string, limit: number): ErrorData =>
  refusal('INVALID_REQUEST', {
    message: `${field} is too long: ${what} may have ${limit} characters.`,
    details: { field, limit },
  });

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
