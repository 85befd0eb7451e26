/** The command line beside `start`: finds the command, runs it, and turns errors into exit codes. */
import { agentsCommand } from './agents.ts';
import { exportCommand, importCommand } from './archive.ts';
import { clusterCommand } from './cluster.ts';
import { type CliDeps, CommandError, type ExitCode, textOf, usage } from './command.ts';
import { deadCommand } from './dead.ts';
import { doctorCommand } from './doctor.ts';
import { allowOnly, parseOptions } from './options.ts';
import { tenantsCommand } from './tenants.ts';

const HELP = `nooble [start]                      start a node here (also without any word)

nooble agents list                  the tenant's agents
nooble agents get <id|slug>         one agent, as YAML that can be applied again
nooble agents apply -f agent.yaml   create it, or change it to what the file says (found by slug); --dry-run
nooble agents rollback <id|slug> <version>
nooble agents history <id|slug>     who changed what, and when
nooble tenants set-tier <tenant> <free|advance|professional|enterprise>
nooble cluster status               the nodes on one PostgreSQL, and what each has
nooble cluster where <tenant> <session>   which node has a session
nooble cluster drain <node>         have a node finish what runs, and stop
nooble cluster bury <node> --yes    declare one dead
nooble dead list [queue]            actions that nobody could work on, newest first; --limit n
nooble dead replay <queue> <id>     send one anew, or with --all in place of the id all of them
nooble dead drop <queue> <id>       delete one, or with --all all of them
nooble doctor                       would a node work here? one line a check, with what to do
nooble doctor --ask                 ask the default model for one token, too; --provider name[/model] asks others
nooble export --tenant t [-o file]  the tenant's agents and conversations, as lines of JSON
nooble import -f file [--tenant t]  what export wrote; what is there already stays
nooble help

agents and tenants speak to a running node: --url or NOOBLE_URL (http://127.0.0.1:8000). Who asks: --tenant or
NOOBLE_TENANT and --tier in open mode, NOOBLE_TOKEN in jwt mode; tenants needs SERVICE_TOKEN. list, get and history
take --json, and so do cluster status and where; dead list shows bodies only with it. export, import and cluster open
DATABASE_URL themselves, and dead REDIS_URL. Exit codes: 0 done, 1 it did not work, 2 misuse.`;

/** Runs the command of the words after `nooble`. Never rejects. */
export async function runCli(args: readonly string[], deps: CliDeps): Promise<ExitCode> {
  try {
    return await dispatch(args, deps);
  } catch (error) {
    deps.err(`nooble: ${textOf(error)}`);
    return error instanceof CommandError ? error.exitCode : 1;
  }
}

async function dispatch(args: readonly string[], deps: CliDeps): Promise<ExitCode> {
  const parsed = parseOptions(args);
  const [command, ...words] = parsed.words;
  const rest = { ...parsed, words };
  if (parsed.options.help || command === 'help' || command === undefined) {
    deps.out(HELP);
    return 0;
  }
  switch (command) {
    case 'agents':
      await agentsCommand(deps, rest);
      return 0;
    case 'tenants':
      await tenantsCommand(deps, rest);
      return 0;
    case 'cluster':
      await clusterCommand(deps, rest);
      return 0;
    case 'dead':
      await deadCommand(deps, rest);
      return 0;
  }
  if (words.length > 0) throw usage(`\`nooble ${command}\` takes no further words.`);
  switch (command) {
    case 'doctor':
      allowOnly(parsed, ['ask', 'provider'], command);
      if (parsed.options.provider && !parsed.options.ask) throw usage('--provider belongs to --ask.');
      return doctorCommand(deps, {
        ask: parsed.options.ask ?? false,
        providers: parsed.options.provider ?? [],
      });
    case 'export':
      await exportCommand(deps, rest);
      return 0;
    case 'import':
      await importCommand(deps, rest);
      return 0;
    default:
      throw usage(`There is no command ${command}.`);
  }
}
