/** `nooble cluster …`: the nodes on one PostgreSQL, read and told by rows, so that it works from wherever that is reached. */
import { sessionIdSchema, tenantIdSchema } from '../domain/ids.ts';
import type { ClusterAdmin, NodeReport } from '../ports/cluster-admin.ts';
import { parseSettings } from '../settings.ts';
import { type CliDeps, CommandError, textOf, usage, withoutSecrets } from './command.ts';
import { allowOnly, type Parsed } from './options.ts';
import { printable, table } from './render.ts';

/** A beat is raised each second: one as old as this is a node in trouble. */
const STILL_MS = 3_000;

/** Runs `cluster <verb>`; `parsed.words` begins with the verb. */
export async function clusterCommand(deps: CliDeps, parsed: Parsed): Promise<void> {
  const [verb, ...words] = parsed.words;
  switch (verb) {
    case 'status':
      allowOnly(parsed, ['json'], 'cluster status');
      if (words.length > 0) throw usage('`nooble cluster status` takes no further words.');
      return withAdmin(deps, (admin) => status(deps, admin, parsed.options.json ?? false));
    case 'where': {
      allowOnly(parsed, ['json'], 'cluster where');
      const [tenant, session, ...more] = words;
      if (session === undefined || more.length > 0)
        throw usage('`nooble cluster where` takes a tenant and a session.');
      return withAdmin(deps, (admin) => where(deps, admin, tenant, session, parsed.options.json ?? false));
    }
    case 'drain':
    case 'bury': {
      allowOnly(parsed, verb === 'bury' ? ['yes'] : [], `cluster ${verb}`);
      const [node, ...more] = words;
      if (node === undefined || more.length > 0)
        throw usage(
          `\`nooble cluster ${verb}\` takes the id of a node, as \`nooble cluster status\` shows it.`,
        );
      if (verb === 'bury' && !parsed.options.yes) throw new CommandError(whatBuryingDoes(node), 2);
      return withAdmin(deps, (admin) => tell(deps, admin, verb, node));
    }
    default:
      throw usage(`\`nooble cluster\` takes status, where, drain or bury${verb ? `, not ${verb}` : ''}.`);
  }
}

const whatBuryingDoes = (node: string): string =>
  `${printable(node)} would be declared dead: its unfinished turns end as INTERRUPTED, and if it still runs it closes all its clients and begins anew. Dead nodes are found without this within seconds. If that is what you want, say it again with --yes.`;

async function status(deps: CliDeps, admin: ClusterAdmin, json: boolean): Promise<void> {
  const nodes = await admin.status();
  if (json) return deps.out(JSON.stringify(nodes, null, 2));
  if (nodes.length === 0) return deps.out('No node has run on this database within the last ten minutes.');
  const head = [
    'BOOT',
    'NODE',
    'STATE',
    'VERSION',
    'STARTED',
    'BEAT',
    'SESSIONS',
    'WANTED',
    'RUNNING',
    'UNSENT',
  ];
  for (const line of table(head, nodes.map(row))) deps.out(line);
  const still = nodes.filter(({ state, beatAgeMs }) => state !== 'dead' && beatAgeMs > STILL_MS);
  for (const { nodeId, beatAgeMs } of still)
    deps.err(
      `${printable(nodeId)} has not been heard of for ${seconds(beatAgeMs)}. The others declare it dead; where none lives, the next one that starts does.`,
    );
}

const row = (node: NodeReport): readonly string[] => [
  String(node.boot),
  node.nodeId,
  node.state,
  node.version,
  new Date(node.startedAtMs).toISOString(),
  `${seconds(node.beatAgeMs)} ago`,
  ...[node.owned, node.wanted, node.running, node.unsent].map(String),
];

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

async function where(
  deps: CliDeps,
  admin: ClusterAdmin,
  tenant: string | undefined,
  session: string,
  json: boolean,
): Promise<void> {
  const tenantId = tenantIdSchema.safeParse(tenant);
  if (!tenantId.success) throw usage(`${printable(tenant ?? '')} is no tenant id.`);
  const sessionId = sessionIdSchema.safeParse(session);
  if (!sessionId.success) throw usage(`${printable(session)} is no session id.`);
  const found = await admin.where(tenantId.data, sessionId.data);
  if (json) return deps.out(JSON.stringify(found ?? null, null, 2));
  if (!found || found.state === 'dead')
    return deps.out(`${session}: no node has it; the next one that is asked takes it.`);
  const { nodeId, boot, state, wantedBy } = found;
  const wanted = wantedBy === undefined ? '' : `; boot ${wantedBy} asks for it`;
  deps.out(`${session}: ${printable(nodeId)} (boot ${boot}, ${state})${wanted}`);
}

async function tell(deps: CliDeps, admin: ClusterAdmin, verb: 'drain' | 'bury', node: string): Promise<void> {
  const boots = await admin[verb](node);
  if (boots.length === 0)
    throw new CommandError(
      `No node ${printable(node)} lives; \`nooble cluster status\` shows those that do.`,
    );
  const which = boots.map((boot) => `boot ${boot}`).join(', ');
  deps.out(
    verb === 'drain'
      ? `${node} (${which}) drains and stops; it reads so within a second or two. \`nooble cluster status\` shows when it is gone.`
      : `${node} (${which}) is dead.`,
  );
}

/** Opens the database of DATABASE_URL; where it is no PostgreSQL, or does not answer, the error advises. */
async function withAdmin(deps: CliDeps, work: (admin: ClusterAdmin) => Promise<void>): Promise<void> {
  const parsed = parseSettings(deps.environment);
  if (!parsed.ok) throw new CommandError(parsed.problems.join('; '), 2);
  const { databaseUrl } = parsed.settings;
  const stores = await deps.openStores(parsed.settings);
  try {
    if (!stores.cluster)
      throw new CommandError(
        `${withoutSecrets(databaseUrl)} has one node at most: set DATABASE_URL to the PostgreSQL that the nodes share.`,
        2,
      );
    await work(stores.cluster);
  } catch (error) {
    throw error instanceof CommandError
      ? error
      : new CommandError(`${withoutSecrets(databaseUrl)}: ${textOf(error)}`);
  } finally {
    await stores.close();
  }
}
