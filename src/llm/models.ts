/** Chat models by configuration: whatever speaks chat completions at a base URL, and offline ones. */
import { LRUCache } from 'lru-cache';
import type { Provider } from '../domain/agent.ts';
import type { Clock } from '../ports/telemetry.ts';
import { createBreakers } from './breaker.ts';
import { type ChatModel, fromLangChain } from './chat-model.ts';
import { createCompletions, createEndpointMemory } from './completions/completions.ts';
import { openConnections, type Proxies } from './completions/connections.ts';
import { NO_HABITS } from './completions/remedies.ts';
import { OfflineModel } from './offline-model.ts';

const OPENAI_URL = 'https://api.openai.com/v1';
const GROQ_URL = 'https://api.groq.com';
/** Endpoints without keys still want the header. */
const NO_KEY = 'none';
/** Instances in the cache; one costs some KB. */
const MAX_CACHED = 500;

interface EndpointSettings {
  readonly apiKey: string | undefined;
  readonly baseUrl: string | undefined;
}

interface ModelSettings {
  readonly openai: EndpointSettings;
  readonly groq: EndpointSettings;
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
  /** Throws a RefusalError (MODEL_ERROR) for an offline model that does not exist. */
  model(spec: ModelSpec): ChatModel;
  /** Breaks what still runs. */
  close(): Promise<void>;
}

const NO_PROXIES: Proxies = { https: undefined, http: undefined, except: undefined };
/** Failures in a row that open an endpoint's circuit. */
const BREAKER_FAILURES = 50;

/** Makes a provider with one instance for each provider, model, temperature and token limit. */
export function createModels(settings: ModelSettings, clock: Clock): ModelProvider {
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
    const { apiKey = NO_KEY, baseUrl } = settings[provider];
    const base = provider === 'groq' ? groqBase(baseUrl ?? GROQ_URL) : (baseUrl ?? OPENAI_URL);
    const endpointModel = createCompletions({
      provider,
      endpoint: {
        url: completionsUrl(base),
        headers: { authorization: `Bearer ${apiKey}` },
        habits: NO_HABITS,
      },
      spec: { dialect: provider, model, temperature, maxTokens },
      ...{ dispatcher: connections.dispatcher, memory, clock },
    });
    return breakers.guard(`${provider} ${base} ${apiKey}`, endpointModel);
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
    close: () => connections.close(),
  };
}

/** Groq's own client adds /openai/v1 by itself; a base URL may come with it. */
const groqBase = (baseUrl: string): string =>
  `${baseUrl.replace(/\/+$/, '').replace(/\/openai\/v1$/, '')}/openai/v1`;

/** A base URL may come with a slash, and with a query. */
function completionsUrl(base: string): URL {
  const url = new URL(base);
  url.pathname = `${url.pathname.replace(/\/+$/, '')}/chat/completions`;
  return url;
}
