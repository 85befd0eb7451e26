/** `nooble doctor`: whether a node could start here and work, one line a check, each with what to do. */
import { createServer } from 'node:net';
import { parseSettings, type Settings } from '../settings.ts';
import { type CliDeps, type ExitCode, textOf, withoutSecrets } from './command.ts';
import { checkRedisUrl } from './redis-check.ts';

const TIMEOUT_MS = 5_000;
const MODEL_URLS = { openai: 'https://api.openai.com/v1', groq: 'https://api.groq.com/openai/v1' } as const;

/** `skip`: there is nothing to check; that is fine too. */
interface Finding {
  readonly check: string;
  readonly result: 'ok' | 'fail' | 'skip';
  readonly text: string;
}

/** Prints every finding; 1 where something would keep the node from working. */
export async function doctorCommand(deps: CliDeps): Promise<ExitCode> {
  const parsed = parseSettings(deps.environment);
  const findings = parsed.ok
    ? [
        settingsFinding(parsed.settings),
        ...(await Promise.all([
          checkStore(deps, parsed.settings),
          checkRedis(deps, parsed.settings),
          checkModel(parsed.settings),
          checkPort(parsed.settings),
        ])),
      ]
    : parsed.problems.map((problem) => fail('settings', problem));
  for (const { check, result, text } of findings)
    deps.out(`${result.padEnd(4)}  ${check.padEnd(8)}  ${text}`);
  return findings.some(({ result }) => result === 'fail') ? 1 : 0;
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

async function checkModel({ models }: Settings): Promise<Finding> {
  const { defaultProvider: provider, defaultModel } = models;
  if (provider === 'offline')
    return skip(
      'model',
      'the built-in offline model answers; set OPENAI_API_KEY or GROQ_API_KEY for a real one',
    );
  const { apiKey, baseUrl } = models[provider];
  const url = `${(baseUrl ?? MODEL_URLS[provider]).replace(/\/+$/, '')}/models`;
  const key = `${provider.toUpperCase()}_API_KEY`;
  const name = withoutSecrets(url);
  try {
    const response = await fetch(url, {
      headers: apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` },
      redirect: 'manual',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    await response.body?.cancel();
    if (response.ok) return ok('model', `${name} answers; the default is ${provider}/${defaultModel}`);
    if (response.status === 401 || response.status === 403)
      return fail('model', `${name} refuses the key; look at ${key}`);
    return response.status === 404
      ? ok('model', `${name} is not there, but its host answers; not every endpoint lists its models`)
      : fail('model', `${name} answers ${response.status}; look at ${provider.toUpperCase()}_BASE_URL`);
  } catch (error) {
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
    const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : textOf(cause);
    return fail(
      'model',
      `${name} can not be reached (${reason}); look at the network and ${provider.toUpperCase()}_BASE_URL`,
    );
  }
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
