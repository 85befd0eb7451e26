/** The first lines in the log of a started node. */
import type { Log } from '../ports/telemetry.ts';
import type { Settings } from '../settings.ts';

interface Listening {
  readonly host: string;
  readonly port: number;
  readonly log: Log;
}

/** Logs where the node listens, and which settings have another effect than one might expect. */
export function announce(settings: Settings, { host, port, log }: Listening): void {
  const { defaultProvider, defaultModel } = settings.models;
  const beside = Object.entries(settings.peers.modes).filter(([, mode]) => mode === 'redis');
  log.info(
    {
      url: `http://${host}:${port}`,
      auth: settings.access.mode,
      provider: defaultProvider,
      model: defaultModel,
      actions: settings.redisUrl === undefined ? 'in process' : 'redis',
      ...(beside.length === 0 ? {} : { services: beside.map(([name]) => name) }),
    },
    'listening',
  );
  if (defaultProvider === 'offline')
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
  if (settings.withoutEffect.length > 0)
    log.warn(
      { variables: settings.withoutEffect },
      'these variables have no effect: nothing polls, services are not reached over HTTP',
    );
}
