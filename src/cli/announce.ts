/** The first lines in the log of a started node. */
import type { Log } from '../ports/telemetry.ts';
import type { Settings } from '../settings.ts';

interface Listening {
  readonly host: string;
  readonly port: number;
  readonly log: Log;
}

/** Logs that a setting can not work, though the node can. */
export const warn = (log: Log, text: string): void => log.warn({}, `a setting can not work: ${text}`);

/** Logs where the node listens, and which settings have another effect than one might expect. */
export function announce(settings: Settings, { host, port, log }: Listening): void {
  const { defaultProvider, defaultModel } = settings.models;
  const beside = Object.entries(settings.peers.modes).filter(([, mode]) => mode === 'redis');
  const address = host.includes(':') ? `[${host}]` : host;
  log.info(
    {
      url: `http://${address}:${port}`,
      auth: settings.access.mode,
      provider: defaultProvider,
      model: defaultModel,
      actions: settings.redisUrl === undefined ? 'in process' : 'redis',
      ...(beside.length === 0 ? {} : { services: beside.map(([name]) => name) }),
    },
    'listening',
  );
  if (settings.access.isModeImplied)
    log.info(
      {},
      'AUTH_MODE is not set: AUTH_JWT_SECRET or AUTH_JWKS_URL means jwt, so every request needs a token',
    );
  if (defaultProvider === 'offline' && settings.warnings.length === 0)
    log.info(
      {},
      'no model key is set: answers come from the built-in offline model; set OPENAI_API_KEY or GROQ_API_KEY',
    );
  for (const { name, missing, variables } of settings.models.providers.values())
    if (missing !== undefined && variables.address === 'PROVIDERS_FILE')
      log.warn(
        { provider: name, variable: missing },
        'a provider of PROVIDERS_FILE can not answer: it has no key',
      );
  for (const warning of settings.warnings) warn(log, warning);
  if (settings.withoutEffect.length > 0)
    log.warn(
      { variables: settings.withoutEffect },
      'these variables have no effect: nothing polls, services are not reached over HTTP',
    );
}
