/** `nooble dead …`: the actions that nobody could work on, read, sent anew or dropped, straight from Redis. */
import { type QueueName, queueNameSchema } from '../domain/queues.ts';
import type { DeadLetter } from '../ports/transport.ts';
import { parseSettings } from '../settings.ts';
import { type CliDead, type CliDeps, CommandError, textOf, usage, withoutSecrets } from './command.ts';
import { allowOnly, type Parsed } from './options.ts';
import { printable, table } from './render.ts';

const LIMIT = 50;
const MAX_LIMIT = 1_000;

/** Runs `dead <verb>`; `parsed.words` begins with the verb. */
export async function deadCommand(deps: CliDeps, parsed: Parsed): Promise<void> {
  const [verb, ...words] = parsed.words;
  switch (verb) {
    case 'list': {
      allowOnly(parsed, ['limit', 'json'], 'dead list');
      if (words.length > 1) throw usage('`nooble dead list` takes one queue, or none.');
      const queue = words[0] === undefined ? undefined : queueOf(words[0]);
      const limit = limitOf(parsed.options.limit);
      return withDead(deps, (dead) => list(deps, dead, queue, limit, parsed.options.json ?? false));
    }
    case 'replay':
    case 'drop': {
      allowOnly(parsed, ['all'], `dead ${verb}`);
      const [name, id, ...more] = words;
      const all = parsed.options.all ?? false;
      if (name === undefined || more.length > 0 || all === (id !== undefined))
        throw usage(`\`nooble dead ${verb}\` takes a queue, and an id or --all.`);
      return withDead(deps, (dead) => end(deps, dead, verb, queueOf(name), id));
    }
    default:
      throw usage(`\`nooble dead\` takes list, replay or drop${verb ? `, not ${verb}` : ''}.`);
  }
}

/** Bodies, with their texts of conversations, are shown with `--json` alone. */
async function list(
  deps: CliDeps,
  { letters, labelOf }: CliDead,
  only: QueueName | undefined,
  limit: number,
  json: boolean,
): Promise<void> {
  const queues = only === undefined ? [...(await letters.queues())].sort() : [only];
  const found: DeadLetter[] = [];
  for (const queue of queues) {
    if (found.length >= limit) break;
    found.push(...(await letters.list(queue, limit - found.length)));
  }
  if (json) return deps.out(JSON.stringify(found, null, 2));
  if (found.length === 0) return deps.out(only ? `Nothing is dead in ${only}.` : 'Nothing is dead.');
  const rows = found.map((letter) => {
    const label = labelOf(letter);
    return [
      letter.queue,
      letter.id,
      new Date(letter.diedAtMs).toISOString(),
      letter.error.code,
      label?.type ?? '(unreadable)',
      label?.tenantId ?? '',
      `${letter.size}${letter.replayable ? '' : ' (cut)'}`,
      cut(letter.error.message),
    ];
  });
  const head = ['QUEUE', 'ID', 'DIED', 'CODE', 'TYPE', 'TENANT', 'BYTES', 'REASON'];
  for (const line of table(head, rows)) deps.out(line);
  if (found.length === limit) deps.err(`The newest ${limit}; --limit shows more, up to ${MAX_LIMIT}.`);
}

async function end(
  deps: CliDeps,
  { letters }: CliDead,
  verb: 'replay' | 'drop',
  queue: QueueName,
  id: string | undefined,
): Promise<void> {
  const count = await letters[verb](queue, id);
  if (id !== undefined && count === 0) {
    const there = (await letters.list(queue, MAX_LIMIT)).some((letter) => letter.id === id);
    throw new CommandError(
      there
        ? `${id} was larger than an action may be and is not whole: it can only be dropped.`
        : `There is no dead action ${printable(id)} in ${queue}.`,
    );
  }
  deps.out(`${queue}: ${count} ${verb === 'replay' ? 'sent anew' : 'dropped'}`);
}

/** Opens the Redis of REDIS_URL; where there is none, or it does not answer, the error advises. */
async function withDead(deps: CliDeps, work: (dead: CliDead) => Promise<void>): Promise<void> {
  const parsed = parseSettings(deps.environment);
  if (!parsed.ok) throw new CommandError(parsed.problems.join('; '), 2);
  const { redisUrl } = parsed.settings;
  if (redisUrl === undefined)
    throw new CommandError(
      'No Redis is configured: set REDIS_URL to the one that the nodes use. Without it a node keeps dead actions in memory.',
      2,
    );
  const name = withoutSecrets(redisUrl);
  const refused = (error: unknown): CommandError =>
    new CommandError(`${name}: ${textOf(error)}; start Redis there, or look at REDIS_URL.`);
  const dead = await deps.openDead(redisUrl).catch((error: unknown) => {
    throw refused(error);
  });
  try {
    await work(dead);
  } catch (error) {
    throw error instanceof CommandError ? error : refused(error);
  } finally {
    await dead.close();
  }
}

function queueOf(word: string): QueueName {
  const queue = queueNameSchema.safeParse(word.replace(/:dead$/, ''));
  if (!queue.success) throw usage(`${printable(word)} is no name of a queue.`);
  return queue.data;
}

function limitOf(word: string | undefined): number {
  if (word === undefined) return LIMIT;
  const limit = Number(word);
  if (!/^\d{1,6}$/.test(word) || limit < 1 || limit > MAX_LIMIT)
    throw usage(`--limit is a number from 1 to ${MAX_LIMIT}.`);
  return limit;
}

/** Characters of a reason that a line shows. */
const MAX_REASON = 80;

const cut = (text: string): string => (text.length > MAX_REASON ? `${text.slice(0, MAX_REASON)}…` : text);
