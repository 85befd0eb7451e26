/** The model that a peer process was started for: our offline one, or LangChain's client of an endpoint. */
import type { BaseChatModel } from '@langchain/core/language_models/chat_models';
import { ChatOpenAI } from '@langchain/openai';
import { OfflineModel } from '../../src/llm/offline-model.ts';

/** Where an endpoint is named, all peers ask it. */
export const ENDPOINT = {
  baseURL: process.env.OPENAI_BASE_URL ?? '',
  apiKey: process.env.OPENAI_API_KEY ?? '',
  model: process.env.BENCH_MODEL ?? 'offline-50x0',
} as const;

export function peerModel(): BaseChatModel {
  const { baseURL, apiKey, model } = ENDPOINT;
  return baseURL === ''
    ? new OfflineModel({ model })
    : new ChatOpenAI({ model, apiKey, configuration: { baseURL } });
}
