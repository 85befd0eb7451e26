/** `nooble export` and `nooble import`: a tenant's agents and conversations as lines of JSON, through the stores. */
import { createReadStream } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Agent, AuditEntry } from '../domain/agent-record.ts';
import { type AgentId, type TenantId, tenantIdSchema } from '../domain/ids.ts';
import type { ArchivedTurn, ArchivedVersion } from '../ports/management.ts';
import { parseSettings, type Settings } from '../settings.ts';
import { type ArchiveLine, archiveLineSchema } from './archive-lines.ts';
import { type CliDeps, type CliStores, CommandError, textOf, usage } from './command.ts';
import { allowOnly, type Parsed } from './options.ts';

const PAGE = 100;
/** Turns of one session that are restored together. */
const BATCH = 100;

/** Writes everything of --tenant to -o, or to the standard output. */
export async function exportCommand(deps: CliDeps, parsed: Parsed): Promise<void> {
  allowOnly(parsed, ['tenant', 'output'], 'export');
  const tenantId = tenantOf(parsed.options.tenant);
  if (tenantId === undefined) throw usage('`nooble export` takes --tenant.');
  await withStores(deps, async (stores) => {
    const { output } = parsed.options;
    if (output === undefined || output === '-') {
      const counts = await writeTenant(stores, tenantId, async (line) => deps.out(line));
      deps.err(`exported ${counts}`);
    } else deps.err(`exported ${await writeFileOf(stores, tenantId, output)} to ${output}`);
  });
}

/** Writes beside the file first, so that a file of that name is always whole. */
async function writeFileOf(stores: CliStores, tenantId: TenantId, output: string): Promise<string> {
  const part = `${output}.part`;
  const file = await open(part, 'w', 0o600).catch((error: unknown) => {
    throw new CommandError(`${output} can not be written: ${textOf(error)}`);
  });
  try {
    const counts = await writeTenant(stores, tenantId, async (line) => {
      await file.write(`${line}\n`);
    });
    await file.sync();
    await file.close();
    await rename(part, output);
    return counts;
  } catch (error) {
    await file.close().catch(() => {});
    await rm(part, { force: true });
    throw error;
  }
}

/** More than any agent has. */
const ALL = { page: 1, pageSize: 1_000_000 };

async function writeTenant(
  { agents, archive }: CliStores,
  tenantId: TenantId,
  write: (line: string) => Promise<void>,
): Promise<string> {
  // Some readers take these two for ends of a line; in JSON they may be escaped.
  const put = (line: ArchiveLine): Promise<void> =>
    write(JSON.stringify(line).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029'));
  await put({ type: 'nooble-export', format: 1, tenant_id: tenantId, at: new Date().toISOString() });
  const counts = { agents: 0, turns: 0 };
  let deleted = 0;
  for await (const agentId of cursor((after: AgentId | undefined) => archive.agents(tenantId, after, PAGE))) {
    const versions = [...(await agents.versions(tenantId, agentId, ALL)).items].reverse();
    if (versions.length === 0) continue;
    await put({ type: 'agent', versions });
    counts.agents += 1;
    if (isDeleted(versions)) deleted += 1;
  }
  for await (const sessionId of cursor((after: Sessions | undefined) =>
    archive.sessions(tenantId, after, PAGE),
  )) {
    const turns = cursor((after: ArchivedTurn | undefined) =>
      archive.turns(tenantId, sessionId, after?.turn.taskId, PAGE),
    );
    for await (const { messages, ...turn } of turns) {
      await put({ type: 'turn', ...turn, messages: [...messages] });
      counts.turns += 1;
    }
  }
  await put({ type: 'end', ...counts });
  return `${counts.agents} agents${amongThem(deleted)} and ${counts.turns} turns of ${tenantId}`;
}

const isDeleted = (versions: readonly Agent[]): boolean => (versions.at(-1)?.deleted_at ?? null) !== null;

const amongThem = (deleted: number): string => (deleted === 0 ? '' : ` (${deleted} of them deleted)`);

type Sessions = Awaited<ReturnType<CliStores['archive']['sessions']>>[number];

/** The items of all pages; each page is asked for by the last item before it. */
async function* cursor<T>(read: (after: T | undefined) => Promise<readonly T[]>): AsyncGenerator<T> {
  for (let after: T | undefined; ; ) {
    const page = await read(after);
    yield* page;
    after = page.at(-1);
    if (page.length < PAGE) return;
  }
}

// --- import ------------------------------------------------------------------------------------------------------

/** Reads an export, for its tenant or another. Agents and turns that are there already stay as they are. */
export async function importCommand(deps: CliDeps, parsed: Parsed): Promise<void> {
  allowOnly(parsed, ['tenant', 'file'], 'import');
  const { file } = parsed.options;
  if (file === undefined) throw usage('`nooble import` takes a file: -f export.ndjson.');
  const into = tenantOf(parsed.options.tenant);
  // Twice over the file, so that a broken one is refused before anything is written.
  const { tenantId } = await checked(file);
  await withStores(deps, async (stores) => {
    const taker = createTaker(stores, into ?? tenantId, deps.err);
    for await (const line of linesOf(file)) await taker.take(line);
    deps.err(`imported into ${into ?? tenantId}: ${await taker.end()}`);
  });
}

async function checked(file: string): Promise<{ tenantId: TenantId }> {
  let tenantId: TenantId | undefined;
  let found = { agents: 0, turns: 0 };
  let whole = false;
  for await (const line of linesOf(file)) {
    if (tenantId === undefined && line.type !== 'nooble-export') break;
    if (line.type === 'nooble-export') tenantId = line.tenant_id;
    else if (line.type === 'agent') found = { ...found, agents: found.agents + 1 };
    else if (line.type === 'turn') found = { ...found, turns: found.turns + 1 };
    else whole = line.agents === found.agents && line.turns === found.turns;
  }
  if (tenantId === undefined) throw new CommandError(`${file} is no export of a tenant.`, 2);
  if (!whole) throw new CommandError(`${file} is not whole; export it again.`, 2);
  return { tenantId };
}

/** `npm run` prints the script that it runs before what that prints. */
const NPM_BANNER = /^> /;

async function* linesOf(file: string): AsyncGenerator<ArchiveLine> {
  const stream = createReadStream(file, 'utf8');
  const lines = createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY });
  let number = 0;
  let isBegun = false;
  try {
    for await (const line of lines) {
      number += 1;
      const text = number === 1 ? line.replace(/^\ufeff/, '') : line;
      if (text === '' || (!isBegun && NPM_BANNER.test(text))) continue;
      isBegun = true;
      const parsed = archiveLineSchema.safeParse(parseJson(text));
      if (!parsed.success)
        throw new CommandError(`${file}, line ${number}: not as \`nooble export\` writes it.`, 2);
      yield parsed.data;
    }
  } catch (error) {
    throw error instanceof CommandError
      ? error
      : new CommandError(`${file} can not be read: ${textOf(error)}`, 2);
  } finally {
    lines.close();
    stream.destroy();
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function createTaker({ archive }: CliStores, tenantId: TenantId, tell: (line: string) => void) {
  const counts = { agents: 0, deleted: 0, agentsThere: 0, turns: 0, turnsThere: 0 };
  let batch: ArchivedTurn[] = [];

  const flush = async (): Promise<void> => {
    const turns = batch;
    batch = [];
    if (turns.length === 0) return;
    const { stored, skipped } = await archive.restore(tenantId, turns);
    counts.turns += stored;
    counts.turnsThere += skipped;
  };

  const takeAgent = async (versions: readonly Agent[]): Promise<void> => {
    const outcome = await archive.restoreAgent(
      tenantId,
      versions.map((version, at) => archived({ ...version, tenant_id: tenantId }, versions[at - 1])),
    );
    if (outcome === 'there') counts.agentsThere += 1;
    if (outcome === 'taken') tell(`agent ${versions.at(-1)?.slug} was left out: another agent has its slug`);
    if (outcome !== 'saved') return;
    counts.agents += 1;
    if (isDeleted(versions)) counts.deleted += 1;
  };

  return {
    async take(line: ArchiveLine): Promise<void> {
      if (line.type === 'agent') await takeAgent(line.versions);
      if (line.type !== 'turn') return;
      if (batch.length >= BATCH || (batch[0] && batch[0].turn.sessionId !== line.turn.sessionId))
        await flush();
      const { type: _, turn, ...rest } = line;
      batch.push({ turn: { ...turn, tenantId }, ...rest });
    },
    async end(): Promise<string> {
      await flush();
      const { agents: made, deleted, agentsThere, turns, turnsThere } = counts;
      return `${made} agents${amongThem(deleted)} and ${turns} turns; ${agentsThere} agents and ${turnsThere} turns were there already`;
    },
  };
}

const archived = (agent: Agent, before: Agent | undefined): ArchivedVersion => ({
  agent,
  audit: {
    agent_id: agent.id,
    version: agent.version,
    action: actionOf(agent, before),
    actor: 'nooble import',
    source: 'import',
    at: new Date().toISOString(),
    changes: [],
  },
});

function actionOf(agent: Agent, before: Agent | undefined): AuditEntry['action'] {
  if (!before) return 'created';
  if ((agent.deleted_at === null) === (before.deleted_at === null)) return 'updated';
  return agent.deleted_at === null ? 'restored' : 'deleted';
}

// --- Both ----------------------------------------------------------------------------------------------------------

function tenantOf(text: string | undefined): TenantId | undefined {
  if (text === undefined) return undefined;
  const parsed = tenantIdSchema.safeParse(text);
  if (!parsed.success) throw usage(`${text} is no tenant id.`);
  return parsed.data;
}

async function withStores(deps: CliDeps, work: (stores: CliStores) => Promise<void>): Promise<void> {
  const stores = await deps.openStores(settingsOf(deps));
  try {
    await work(stores);
  } finally {
    await stores.close();
  }
}

function settingsOf(deps: CliDeps): Settings {
  const parsed = parseSettings(deps.environment);
  if (parsed.ok) return parsed.settings;
  throw new CommandError(`these settings are wrong:\n  ${parsed.problems.join('\n  ')}`, 2);
}
