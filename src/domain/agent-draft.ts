/** An agent as it would be after a request: the request over defaults or the present version, checked. */
import { type AgentField, diffAgents, fieldsOf } from './agent-diff.ts';
import type { Agent, AgentFields, Change, RuleIssue } from './agent-record.ts';
import {
  type AgentDefaults,
  type AgentRules,
  blankAgent,
  checkAgent,
  patched,
  readFields,
} from './agent-rules.ts';
import type { Tier } from './tiers.ts';

export interface DraftRules extends AgentRules {
  readonly defaults: AgentDefaults;
}

export interface Draft {
  /** What it would be, where nothing is at issue. */
  readonly fields: AgentFields;
  readonly issues: readonly RuleIssue[];
  /** Asked for, rather than made from the name. */
  readonly slugGiven: boolean;
}

/** Stands for a name that is missing or wrong while the other fields are checked. */
const UNNAMED = 'agent';

const NAME_REQUIRED: RuleIssue = { field: 'name', rule: 'required', message: 'an agent needs a name' };

/** A new agent out of a request. */
export function draftNew(raw: unknown, tier: Tier, rules: DraftRules): Draft {
  const { patch, issues } = readFields(raw);
  const fields = patched(blankAgent(patch.name ?? UNNAMED, rules.defaults), patch);
  const all = together([...issues, ...nameIssue(raw)], checkAgent(fields, tier, rules));
  return { fields, issues: all, slugGiven: patch.slug !== undefined };
}

interface DraftChange extends Draft {
  readonly changes: readonly Change[];
}

/**
 * A version after `current`. `replace`: what the request does not name gets its default, the slug aside.
 * A change of names or tags, or one that switches the agent off, is not held up by limits of the tier.
 */
export function draftChange(
  raw: unknown,
  current: Agent,
  options: { readonly replace: boolean; readonly tier: Tier; readonly rules: DraftRules },
): DraftChange {
  const { replace, tier, rules } = options;
  const { patch, issues } = readFields(withoutUnchanged(raw, current, OWN));
  const blank = { ...blankAgent(patch.name ?? UNNAMED, rules.defaults), slug: current.slug };
  const fields = patched(replace ? blank : fieldsOf(current), patch);
  const changes = diffAgents(fieldsOf(current), fields);
  const found = changes.every(isHarmless) ? [] : checkAgent(fields, tier, rules);
  const missing = replace ? nameIssue(raw) : [];
  return {
    fields,
    changes,
    issues: together([...issues, ...missing], found),
    slugGiven: patch.slug !== undefined,
  };
}

const nameIssue = (raw: unknown): RuleIssue[] =>
  typeof raw === 'object' &&
  raw !== null &&
  !Array.isArray(raw) &&
  (Reflect.get(raw, 'name') ?? undefined) === undefined
    ? [NAME_REQUIRED]
    : [];

/** A rule says nothing about a field whose shape is wrong already. */
function together(shape: readonly RuleIssue[], rules: readonly RuleIssue[]): RuleIssue[] {
  const wrong = new Set(shape.map(({ field }) => field.split('.', 1)[0]));
  return [...shape, ...rules.filter(({ field }) => !wrong.has(field))];
}

const HARMLESS: ReadonlySet<string> = new Set<AgentField>(['name', 'slug', 'description', 'tags']);

const isHarmless = ({ field, to }: Change): boolean =>
  HARMLESS.has(field) || (field === 'is_active' && to === false);

const OWN: readonly (keyof Agent)[] = [
  'id',
  'tenant_id',
  'template_id',
  'version',
  'created_at',
  'updated_at',
  'deleted_at',
];

/** Fields that the store adds (`own`) may come back unchanged, so that what was read can be changed and sent. */
export function withoutUnchanged<T extends object>(
  raw: unknown,
  current: T,
  own: readonly (keyof T & string)[],
): unknown {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) return raw;
  const isUnchanged = ([field, value]: [string, unknown]): boolean =>
    own.some((name) => name === field && current[name] === value);
  return Object.fromEntries(Object.entries(raw).filter((entry) => !isUnchanged(entry)));
}

/** Whether a body that was read before, and changed, names another version than there is now. */
export const isOfOtherVersion = (raw: unknown, current: { readonly version: number }): boolean =>
  typeof raw === 'object' &&
  raw !== null &&
  'version' in raw &&
  Number.isInteger(raw.version) &&
  raw.version !== current.version;
