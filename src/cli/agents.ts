/** `nooble agents …`: a tenant's agents on a running node, and their YAML files. */
import { readFile } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { parseAllDocuments, stringify } from 'yaml';
import { z } from 'zod';
import {
  type Agent,
  agentFieldsSchema,
  agentInputSchema,
  agentSchema,
  auditEntrySchema,
  slugSchema,
} from '../domain/agent-record.ts';
import { ID_PATTERN } from '../domain/ids.ts';
import { type CliDeps, CommandError, textOf, usage } from './command.ts';
import { createNodeClient, type NodeClient } from './node-client.ts';
import { allowOnly, type OptionName, type Parsed } from './options.ts';
import { shown, table } from './render.ts';

const ACCESS: readonly OptionName[] = ['tenant', 'tier', 'url'];

/** Runs `agents <verb>`; `parsed.words` begins with the verb. */
export async function agentsCommand(deps: CliDeps, parsed: Parsed): Promise<void> {
  const [verb, ...words] = parsed.words;
  const expect = (count: number, what: string, allowed: readonly OptionName[]): void => {
    allowOnly(parsed, [...ACCESS, ...allowed], `agents ${verb}`);
    if (words.length !== count) throw usage(`\`nooble agents ${verb}\` takes ${what}.`);
  };
  const client = (): NodeClient => createNodeClient(deps, parsed, 'tenant');
  const [id = '', version = ''] = words;
  switch (verb) {
    case 'list':
      expect(0, 'no further words', ['json']);
      return list(deps, client(), parsed.options.json ?? false);
    case 'get':
      expect(1, 'an id or a slug', ['json']);
      return get(deps, client(), id, parsed.options.json ?? false);
    case 'apply':
      expect(0, 'a file: -f agent.yaml', ['file', 'dry-run']);
      return apply(deps, client(), parsed);
    case 'rollback':
      expect(2, 'an id or a slug, and a version', []);
      return rollback(deps, client(), id, version);
    case 'history':
      expect(1, 'an id or a slug', ['json']);
      return history(deps, client(), id, parsed.options.json ?? false);
    default:
      throw usage(
        `\`nooble agents\` takes list, get, apply, rollback or history${verb ? `, not ${verb}` : ''}.`,
      );
  }
}

async function list(deps: CliDeps, client: NodeClient, json: boolean): Promise<void> {
  const agents = read(z.array(agentSchema), await client.all('/api/agents'), client);
  if (json) return deps.out(JSON.stringify(agents, null, 2));
  const rows = agents.map((agent) => [
    agent.slug,
    agent.name,
    agent.type,
    `${agent.provider}/${agent.model}`,
    `v${agent.version}`,
    agent.is_active ? 'active' : 'off',
    agent.id,
  ]);
  for (const line of table(['SLUG', 'NAME', 'TYPE', 'MODEL', 'VERSION', 'STATE', 'ID'], rows)) deps.out(line);
}

async function get(deps: CliDeps, client: NodeClient, name: string, json: boolean): Promise<void> {
  const agent = await find(client, name);
  // As YAML it can be edited and applied again: without ids, versions and times.
  deps.out(
    json ? JSON.stringify(agent, null, 2) : stringify(agentFieldsSchema.strip().parse(agent)).trimEnd(),
  );
}

async function rollback(deps: CliDeps, client: NodeClient, name: string, version: string): Promise<void> {
  const to = Number(version);
  if (!Number.isInteger(to) || to < 1) throw usage(`${version} is no version; it is a number from 1.`);
  const agent = await find(client, name);
  const { body } = await client.ask(`/api/agents/${encodeURIComponent(agent.id)}/rollback`, {
    method: 'POST',
    body: { version: to },
    ifMatch: agent.version,
  });
  const after = read(agentSchema, body, client);
  deps.out(`${after.slug}: version ${after.version} is what version ${to} was`);
  for (const line of changes(agent, agentFieldsSchema.strip().parse(after))) deps.out(line);
}

async function history(deps: CliDeps, client: NodeClient, name: string, json: boolean): Promise<void> {
  const { id } = await find(client, name, true);
  const path = `/api/agents/${encodeURIComponent(id)}/history`;
  const entries = read(z.array(auditEntrySchema), await client.all(path), client);
  if (json) return deps.out(JSON.stringify(entries, null, 2));
  const rows = entries.map((entry) => [
    entry.at,
    `v${entry.version}`,
    entry.action,
    `${entry.actor} (${entry.source})`,
    entry.changes.map(({ field }) => field).join(', '),
  ]);
  for (const line of table(['WHEN', 'VERSION', 'WHAT', 'WHO', 'CHANGED'], rows)) deps.out(line);
}

// --- apply -----------------------------------------------------------------------------------------------------

/** Makes each agent of a file, or changes it to what the file says. A second time nothing happens. */
async function apply(deps: CliDeps, client: NodeClient, { options }: Parsed): Promise<void> {
  if (options.file === undefined) throw usage('`nooble agents apply` takes a file: -f agent.yaml.');
  const wanted = await readAgents(options.file);
  for (const fields of wanted) await applyOne(deps, client, fields, options['dry-run'] ?? false);
}

async function applyOne(deps: CliDeps, client: NodeClient, fields: Fields, dryRun: boolean): Promise<void> {
  const before = await bySlug(client, fields.slug);
  const checked = agentInputSchema.partial().safeParse(fields);
  // The node names all mistakes at once.
  const wanted: Record<string, unknown> = checked.success ? checked.data : fields;
  const lines = before ? changes(before, wanted) : [];
  if (before && lines.length === 0 && checked.success)
    return deps.out(`${before.slug}: unchanged (version ${before.version})`);
  const patch = before ? changedFields(before, wanted) : wanted;
  if (dryRun) {
    const body = before ? { ...patch, agent_id: before.id } : patch;
    const answer = await client.ask('/api/agents/validate', { method: 'POST', body });
    const { valid, issues } = read(validationSchema, answer.body, client);
    if (!valid)
      throw new CommandError(
        [`${fields.slug}: not valid`, ...issues.map(({ field, message }) => `  ${field}: ${message}`)].join(
          '\n',
        ),
      );
    deps.out(`${fields.slug}: would be ${before ? `changed (version ${before.version})` : 'created'}`);
  } else {
    const { body } = before
      ? await client.ask(`/api/agents/${encodeURIComponent(before.id)}`, {
          method: 'PATCH',
          body: patch,
          ifMatch: before.version,
        })
      : await client.ask('/api/agents', { method: 'POST', body: patch });
    const after = read(agentSchema, body, client);
    deps.out(`${after.slug}: ${before ? `changed to version ${after.version}` : `created as ${after.id}`}`);
  }
  for (const line of lines) deps.out(line);
}

const validationSchema = z.object({
  valid: z.boolean(),
  issues: z.array(z.object({ field: z.string(), message: z.string() })),
});

type Fields = Readonly<Record<string, unknown>> & { readonly slug: string };

const documentSchema = z.looseObject({ slug: slugSchema });

/** The agents of a YAML (or JSON) file, one a document; `-` is the standard input. */
async function readAgents(file: string): Promise<readonly Fields[]> {
  const text = await readFile(file === '-' ? '/dev/stdin' : file, 'utf8').catch((error: unknown) => {
    throw new CommandError(`${file} can not be read: ${textOf(error)}`, 2);
  });
  const documents = parseAllDocuments(text, { merge: true });
  const found = Array.isArray(documents) ? documents : [];
  const agents = found.flatMap((document) => {
    const [wrong] = document.errors;
    if (wrong) throw new CommandError(`${file} is no YAML: ${wrong.message}`, 2);
    const value: unknown = document.toJS({ maxAliasCount: 100 });
    return value === null || value === undefined ? [] : [value];
  });
  if (agents.length === 0) throw new CommandError(`${file} names no agent.`, 2);
  return agents.map((agent, index) => {
    const parsed = documentSchema.safeParse(agent);
    if (parsed.success) return parsed.data;
    const [issue] = parsed.error.issues;
    const where = agents.length > 1 ? ` (agent ${index + 1})` : '';
    throw new CommandError(
      `${file}${where}: slug: ${issue?.message}; an agent is found again by its slug, so the file must name it.`,
      2,
    );
  });
}

// --- Looking and comparing --------------------------------------------------------------------------------------

async function bySlug(client: NodeClient, slug: string): Promise<Agent | undefined> {
  const found = await client.all(`/api/agents?q=${encodeURIComponent(slug)}`);
  return read(z.array(agentSchema), found, client).find((agent) => agent.slug === slug);
}

/** By id or slug. With `deleted` one that is only known to its history counts too. */
async function find(client: NodeClient, name: string, deleted = false): Promise<{ id: string } & Agent> {
  if (!ID_PATTERN.test(name)) throw usage(`${name} is neither an id nor a slug.`);
  const { status, body } = await client.ask(`/api/agents/${encodeURIComponent(name)}`, { accept: [404] });
  if (status !== 404) return read(agentSchema, body, client);
  const agent = await bySlug(client, name);
  if (agent) return agent;
  if (deleted) {
    const versions = await client.ask(`/api/agents/${encodeURIComponent(name)}/versions`, { accept: [404] });
    if (versions.status !== 404) return read(versionsSchema, versions.body, client).items[0];
  }
  throw new CommandError(`The tenant has no agent ${name}; \`nooble agents list\` shows those it has.`);
}

const versionsSchema = z.object({ items: z.tuple([agentSchema], agentSchema) });

function changedFields(before: Agent, wanted: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const known = new Map<string, unknown>(Object.entries(before));
  return Object.fromEntries(
    Object.entries(wanted).filter(([field, value]) => !isDeepStrictEqual(known.get(field), value)),
  );
}

/** One line a field that changes. */
function changes(before: Agent, wanted: Readonly<Record<string, unknown>>): string[] {
  const known = new Map<string, unknown>(Object.entries(before));
  return Object.entries(changedFields(before, wanted)).map(
    ([field, value]) => `  ${field}: ${shown(known.get(field))} → ${shown(value)}`,
  );
}

function read<S extends z.ZodType>(schema: S, body: unknown, client: NodeClient): z.infer<S> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new CommandError(`${client.url} does not answer as a node of this version does.`);
}
