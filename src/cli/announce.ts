/** What a node that has just started says of itself in its log. */
import type { Log } from '../ports.ts';
import type { Settings } from '../settings.ts';

export interface Listening {
  readonly host: string;
  readonly port: number;
  readonly log: Log;
}

/** Says where the node listens, and which settings do not do what one might expect. */
export function announce(settings: Settings, { host, port, log }: Listening): void {
  const { defaultProvider, defaultModel } = settings.models;
  log.info(
    {
      url: `http://${host}:${port}`,
      auth: settings.access.mode,
      provider: defaultProvider,
      model: defaultModel,
    },
    'listening',
  );
  if (defaultProvider === 'offline')
    log.info(
      {},
      'no model key is set: answers come from the built-in offline model; set OPENAI_API_KEY or GROQ_API_KEY',
    );
  if (settings.redisUrl)
    log.warn({}, 'REDIS_URL has no effect in this version: actions of other services are not taken yet');
  if (settings.withoutEffect.length > 0)
    log.warn(
      { variables: settings.withoutEffect },
      'these variables have no effect: nothing polls, services are not reached over HTTP',
    );
}
