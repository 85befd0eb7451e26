/** `nooble doctor`: whether a node could start here and work, one line a check, each with what to do. */
import { createServer } from 'node:net';
import { headersOf, knownProviders, modelsUrl } from '../domain/providers.ts';
import { parseSettings, type Settings } from '../settings.ts';
import { type CliDeps, type ExitCode, textOf, withoutSecrets } from './command.ts';
import { checkRedisUrl } from './redis-check.ts';

const TIMEOUT_MS = 5_000;
/** A model may have to be loaded first. */
const ASK_TIMEOUT_MS = 60_000;

/** `skip`: there is nothing to check; that is fine too. */
interface Finding {
  readonly check: string;
  readonly result: 'ok' | 'fail' | 'skip';
  readonly text: string;
}

/** What the command line adds: whether models are asked, and which beside the default one, as `provider` or `provider/model`. */
export interface DoctorOptions {
  readonly ask: boolean;
  readonly providers: readonly string[];
}

/** Prints every finding; 1 where something would keep the node from working. */
export async function doctorCommand(deps: CliDeps, options: DoctorOptions): Promise<ExitCode> {
  const parsed = parseSettings(deps.environment);
  const findings = parsed.ok
    ? await findingsOf(deps, parsed.settings, options)
    : parsed.problems.map((problem) => fail('settings', problem));
  for (const { check, result, text } of findings)
    deps.out(`${result.padEnd(4)}  ${check.padEnd(8)}  ${text}`);
  return findings.some(({ result }) => result === 'fail') ? 1 : 0;
}

async function findingsOf(
  deps: CliDeps,
  settings: Settings,
  { ask, providers }: DoctorOptions,
): Promise<readonly Finding[]> {
  const { defaultProvider, defaultModel } = settings.models;
  const asked = ask ? [`${defaultProvider}/${defaultModel}`, ...providers] : [];
  return [
    settingsFinding(settings),
    keysFinding(settings),
    ...(await Promise.all([
      checkStore(deps, settings),
      checkRedis(deps, settings),
      checkModel(settings),
      checkPort(settings),
      ...asked.map((question) => askModel(deps, settings, question)),
    ])),
  ];
}

const ok = (check: string, text: string): Finding => ({ check, result: 'ok', text });
const fail = (check: string, text: string): Finding => ({ check, result: 'fail', text });
const skip = (check: string, text: string): Finding => ({ check, result: 'skip', text });

function settingsFinding({ withoutEffect, access }: Settings): Finding {
  const idle = withoutEffect.length > 0 ? `; without effect: ${withoutEffect.join(', ')}` : '';
  return ok('settings', `every variable is fine (AUTH_MODE=${access.mode})${idle}`);
}

async function checkStore(deps: CliDeps, settings: Settings): Promise<Finding> {
  const name = withoutSecrets(settings.databaseUrl);
  try {
    const stores = await deps.openStores(settings);
    try {
      await stores.conversations.ping();
    } finally {
      await stores.close();
    }
    return ok('store', `${name} opens and takes writes`);
  } catch (error) {
    return fail('store', `${textOf(error)}; look at DATABASE_URL, and whether it may be written there`);
  }
}

async function checkRedis({ askRedis }: CliDeps, { redisUrl }: Settings): Promise<Finding> {
  if (redisUrl === undefined) return skip('redis', 'REDIS_URL is not set: one node, nothing over queues');
  const name = withoutSecrets(redisUrl);
  const { ok: isFine, text } = await checkRedisUrl(askRedis, redisUrl, TIMEOUT_MS);
  return (isFine ? ok : fail)('redis', `${name}: ${text}`);
}

/** Which providers agents may have, and what the others lack. */
function keysFinding({ models }: Settings): Finding {
  const known = [...knownProviders(models.providers)];
  const complete = known.filter(([, missing]) => missing === undefined).map(([name]) => name);
  const lacking = known.flatMap(([name, missing]) => (missing === undefined ? [] : [`${name} (${missing})`]));
  const without = lacking.length > 0 ? `; not set up: ${lacking.join(', ')}` : '';
  return ok('keys', `these providers could answer: ${complete.join(', ')}${without}`);
}

async function checkModel({ models }: Settings): Promise<Finding> {
  const { defaultProvider, defaultModel } = models;
  const provider = models.providers.get(defaultProvider);
  const url = provider ? modelsUrl(provider) : undefined;
  if (!provider || !url)
    return skip(
      'model',
      'the built-in offline model answers; set OPENAI_API_KEY or GROQ_API_KEY for a real one',
    );
  const name = withoutSecrets(url.href);
  const { key, address } = provider.variables;
  try {
    const response = await fetch(url, {
      headers: headersOf(provider),
      redirect: 'manual',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    await response.body?.cancel();
    if (response.ok) return ok('model', `${name} answers; the default is ${defaultProvider}/${defaultModel}`);
    if (response.status === 401 || response.status === 403)
      return fail('model', `${name} refuses the key; look at ${key}`);
    return response.status === 404
      ? ok('model', `${name} is not there, but its host answers; not every endpoint lists its models`)
      : fail('model', `${name} answers ${response.status}; look at ${address}`);
  } catch (error) {
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
    const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : textOf(cause);
    return fail('model', `${name} can not be reached (${reason}); look at the network and ${address}`);
  }
}

/** Asks a provider's model for one token. Without a model's name it is the provider's usual one, or the node's. */
async function askModel(deps: CliDeps, { models }: Settings, question: string): Promise<Finding> {
  const [provider = '', ...rest] = question.split('/');
  const known = knownProviders(models.providers);
  if (!known.has(provider))
    return fail('ask', `there is no provider ${provider}; there are ${[...known.keys()].join(', ')}`);
  const usual = models.providers.get(provider)?.model ?? models.defaultModel;
  const model = rest.length > 0 ? rest.join('/') : usual;
  const missing = known.get(provider);
  if (missing !== undefined) return fail('ask', `${provider} was not asked: set ${missing}`);
  const { isAnswer, text } = await deps.askModel(models, { provider, model, timeoutMs: ASK_TIMEOUT_MS });
  return (isAnswer ? ok : fail)('ask', `${provider}/${model} ${text}`);
}

function checkPort({ host, port }: Settings): Promise<Finding> {
  const name = `${host}:${port}`;
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) =>
      resolve(
        error.code === 'EADDRINUSE'
          ? fail('port', `${name} is taken; a node may be running already, or set PORT`)
          : fail('port', `${name}: ${error.code ?? error.message}; look at HOST and PORT`),
      ),
    );
    server.listen({ host, port, exclusive: true }, () =>
      server.close(() => resolve(ok('port', `${name} is free`))),
    );
  });
}
