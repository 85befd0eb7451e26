/** Chat models by configuration: OpenAI, Groq, whatever speaks OpenAI's protocol at a base URL, and offline ones. */
import type { BaseChatModel } from '@langchain/core/language_models/chat_models';
import { ChatGroq } from '@langchain/groq';
import { ChatOpenAI } from '@langchain/openai';
import { LRUCache } from 'lru-cache';
import type { Provider } from '../domain/agent.ts';
import { OfflineModel } from './offline-model.ts';

const OPENAI_URL = 'https://api.openai.com/v1';
const GROQ_URL = 'https://api.groq.com';
/** Endpoints without keys still want the header. */
const NO_KEY = 'none';
/** Instances in the cache; one costs some KB and its client. */
const MAX_CACHED = 500;
/** OpenAI's reasoning models refuse any temperature but their own. */
const FIXED_TEMPERATURE = /^o\d|^gpt-5(?!.*chat)/;

interface Endpoint {
  readonly apiKey: string | undefined;
  readonly baseUrl: string | undefined;
}

interface ModelEndpoints {
  readonly openai: Endpoint;
  readonly groq: Endpoint;
}

interface ModelSpec {
  readonly provider: Provider;
  readonly model: string;
  readonly temperature: number;
  /** Tokens the model may answer with. */
  readonly maxTokens: number;
}

/** Gives out chat models. They hold no conversation and are shared by all runs of the same spec. */
export interface ModelProvider {
  /** Throws a RefusalError (MODEL_ERROR) for an offline model that does not exist. */
  model(spec: ModelSpec): BaseChatModel;
}

/** Makes a provider with one instance for each provider, model, temperature and token limit. */
export function createModels(endpoints: ModelEndpoints): ModelProvider {
  const models = new LRUCache<string, BaseChatModel>({ max: MAX_CACHED });
  return {
    model(spec) {
      const key = `${spec.provider} ${spec.temperature} ${spec.maxTokens} ${spec.model}`;
      const known = models.get(key);
      if (known) return known;
      const model = make(spec, endpoints);
      models.set(key, model);
      return model;
    },
  };
}

/** Retries are the run's own (model-call.ts), hence none here. */
function make(
  { provider, model, temperature, maxTokens }: ModelSpec,
  endpoints: ModelEndpoints,
): BaseChatModel {
  switch (provider) {
    case 'openai':
      return new ChatOpenAI({
        model,
        maxTokens,
        maxRetries: 0,
        apiKey: endpoints.openai.apiKey ?? NO_KEY,
        configuration: { baseURL: endpoints.openai.baseUrl ?? OPENAI_URL },
        ...(FIXED_TEMPERATURE.test(model) ? {} : { temperature }),
      });
    case 'groq':
      return new ChatGroq({
        model,
        maxTokens,
        temperature,
        maxRetries: 0,
        apiKey: endpoints.groq.apiKey ?? NO_KEY,
        // The client adds /openai/v1 itself; a base URL may come with it.
        baseUrl: (endpoints.groq.baseUrl ?? GROQ_URL).replace(/\/openai\/v1\/?$/, ''),
      });
    case 'offline':
      return new OfflineModel({ model, maxTokens });
  }
}
