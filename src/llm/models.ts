/** Chat models by configuration: whatever speaks chat completions at a base URL, and offline ones. */
import { LRUCache } from 'lru-cache';
import type { Provider } from '../domain/agent.ts';
import { answerCap, factsOf, MODEL_TABLE, type ModelTable } from '../domain/models.ts';
import { completionsUrl, headersOf, type ProviderTable } from '../domain/providers.ts';
import type { Quirks } from '../domain/ready-made-providers.ts';
import type { Clock } from '../ports/telemetry.ts';
import { createBreakers } from './breaker.ts';
import { type ChatModel, fromLangChain } from './chat-model.ts';
import { createCompletions, createEndpointMemory } from './completions/completions.ts';
import { openConnections, type Proxies } from './completions/connections.ts';
import type { Habits } from './completions/remedies.ts';
import { type ModelFailure, notSetUp } from './model-errors.ts';
import { OfflineModel } from './offline-model.ts';

/** Instances in the cache; one costs some KB. */
const MAX_CACHED = 500;

interface ModelSettings {
  readonly providers: ProviderTable;
  /** What is known of models; by default the built-in table. */
  readonly table?: ModelTable;
  readonly proxies?: Proxies;
  readonly breakerFailures?: number;
}

interface ModelSpec {
  readonly provider: Provider;
  readonly model: string;
  readonly temperature: number;
  /** Tokens the model may answer with, where the agent names them. */
  readonly maxTokens: number | undefined;
}

/** Gives out chat models. They hold no conversation and are shared by all runs of the same spec. */
export interface ModelProvider {
  /**
   * Throws a RefusalError (MODEL_ERROR) for an offline model that does not exist. The model of a provider that the node
   * does not have, or that lacks its key or address, answers nothing but that (MODEL_UNAVAILABLE).
   */
  model(spec: ModelSpec): ChatModel;
  /** Providers whose endpoints fail, and are not asked for a while. */
  openCircuits(): readonly string[];
  /** Breaks what still runs. */
  close(): Promise<void>;
}

const NO_PROXIES: Proxies = { https: undefined, http: undefined, except: undefined };
/** Failures in a row that open an endpoint's circuit. */
const BREAKER_FAILURES = 50;

/** Makes a provider with one instance for each provider, model, temperature and token limit. */
export function createModels(settings: ModelSettings, clock: Clock): ModelProvider {
  const { providers, table = MODEL_TABLE } = settings;
  const models = new LRUCache<string, ChatModel>({ max: MAX_CACHED });
  const connections = openConnections(settings.proxies ?? NO_PROXIES);
  const breakers = createBreakers({ failures: settings.breakerFailures ?? BREAKER_FAILURES });
  const memory = createEndpointMemory();

  function make({ provider, model, temperature, maxTokens }: ModelSpec): ChatModel {
    if (provider === 'offline')
      return fromLangChain(
        provider,
        model,
        new OfflineModel({ model, ...(maxTokens === undefined ? {} : { maxTokens }) }),
      );
    const config = providers.get(provider);
    const url = config ? completionsUrl(config, model) : undefined;
    if (!config || !url || config.missing !== undefined)
      return unable(provider, model, notSetUp(provider, config?.missing));
    const endpointModel = createCompletions({
      provider,
      endpoint: {
        url,
        headers: headersOf(config),
        thinkTags: config.thinkTags,
        habits: habitsOf(config, table, provider, model),
      },
      spec: { dialect: config.dialect, model, temperature, maxTokens },
      ...{ connections, memory, clock },
    });
    return breakers.guard(provider, endpointModel);
  }

  return {
    model(spec) {
      const key = `${spec.provider} ${spec.temperature} ${spec.maxTokens} ${spec.model}`;
      const known = models.get(key);
      if (known) return known;
      const model = make(spec);
      models.set(key, model);
      return model;
    },
    openCircuits: () => breakers.open(),
    close: () => connections.close(),
  };
}

/** How requests have to look, as far as it is known before the first. */
const habitsOf = (
  { without, limitField }: Quirks,
  ...of: readonly [ModelTable, Provider, string]
): Habits => ({
  without,
  renamed: limitField === undefined ? {} : { [OTHER_LIMIT[limitField]]: limitField },
  answerTokens: answerCap(...of),
  window: factsOf(...of).window,
});

const OTHER_LIMIT = { max_tokens: 'max_completion_tokens', max_completion_tokens: 'max_tokens' } as const;

/** A model that no request reaches: another one stands in where there is one. */
const unable = (provider: string, model: string, failure: ModelFailure): ChatModel => ({
  provider,
  model,
  estimate: () => 0,
  ask: () => Promise.reject(failure),
});
