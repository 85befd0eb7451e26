/** Texts as vectors: from whatever speaks OpenAI's protocol, or offline, where vectors show only shared words. */
import { OpenAIEmbeddings } from '@langchain/openai';
import { z } from 'zod';
import { RefusalError, refusalError } from '../domain/errors.ts';
import type { Embeddings } from '../ports/peers.ts';
import { classify, type ModelFailure, refusedByStatus } from './model-errors.ts';

const OPENAI_URL = 'https://api.openai.com/v1';
const DEFAULT_MODEL = 'text-embedding-3-small';
const TIMEOUT_MS = 30_000;
/** Endpoints without keys still want the header. */
const NO_KEY = 'none';
/** Numbers of an offline vector. */
const OFFLINE_LENGTH = 256;

interface EmbeddingsOptions {
  readonly apiKey: string | undefined;
  readonly baseUrl: string | undefined;
  readonly model?: string;
  readonly timeoutMs?: number;
}

/** Asks the endpoint where there is a key or an address; else works offline, as its `model` shows. */
export const createEmbeddings = (options: EmbeddingsOptions): Embeddings =>
  options.apiKey === undefined && options.baseUrl === undefined
    ? offlineEmbeddings()
    : endpointEmbeddings(options);

function endpointEmbeddings({
  apiKey,
  baseUrl,
  model = DEFAULT_MODEL,
  timeoutMs,
}: EmbeddingsOptions): Embeddings {
  return {
    model,
    async embed(texts, signal) {
      if (signal?.aborted) throw calledOff();
      const limit = AbortSignal.timeout(timeoutMs ?? TIMEOUT_MS);
      const ends = signal ? [signal, limit] : [limit];
      // A client for each call: it takes no signal, so that a call is ended under its own fetch.
      const client = new OpenAIEmbeddings({
        model,
        apiKey: apiKey ?? NO_KEY,
        maxRetries: 0,
        stripNewLines: false,
        encodingFormat: 'float',
        configuration: {
          baseURL: baseUrl ?? OPENAI_URL,
          fetch: (url, init) =>
            fetch(url, {
              ...init,
              signal: AbortSignal.any([...ends, ...(init?.signal ? [init.signal] : [])]),
            }),
        },
      });
      try {
        return sound(await client.embedDocuments([...texts]), texts.length);
      } catch (error) {
        if (signal?.aborted) throw calledOff();
        if (limit.aborted) throw unavailable();
        throw new RefusalError(refusedClient(error).data);
      }
    },
  };
}

/** The client throws what an endpoint answered as an error with its status and headers. */
function refusedClient(error: unknown): ModelFailure {
  const { status, headers, code } = z.looseObject(clientError).catch({ code: undefined }).parse(error);
  if (status === undefined) return classify(error);
  const header = (name: string): string | undefined => headers?.get(name) ?? undefined;
  return refusedByStatus({ status, header, body: { code } }, Date.now());
}

const clientError = {
  status: z.number().optional(),
  headers: z.instanceof(Headers).optional().catch(undefined),
  code: z.unknown(),
};

/** One vector a text, of numbers, all of one length: others can not be compared. */
function sound(vectors: readonly unknown[], count: number): readonly (readonly number[])[] {
  const read = vectors.map((vector) =>
    Array.isArray(vector) && vector.every(Number.isFinite) ? vector : [],
  );
  const length = read[0]?.length ?? 0;
  if (read.length !== count || length === 0 || read.some((vector) => vector.length !== length))
    throw refusalError('MODEL_ERROR', { message: 'The endpoint answered something else than embeddings.' });
  return read;
}

const calledOff = (): RefusalError =>
  refusalError('INTERRUPTED', { message: 'The embedding was called off.' });

const unavailable = (): RefusalError =>
  refusalError('MODEL_UNAVAILABLE', { message: 'The endpoint did not answer with embeddings in time.' });

/**
 * Hashed words: each adds or takes one at a place that its hash names; the vector has length 1. The same text gives the
 * same vector on every node, and texts that share words are near; of meaning it knows nothing.
 */
const offlineEmbeddings = (): Embeddings => ({
  model: `offline-hash-${OFFLINE_LENGTH}`,
  async embed(texts, signal) {
    if (signal?.aborted) throw calledOff();
    return texts.map(hashed);
  },
});

function hashed(text: string): readonly number[] {
  const vector = new Array<number>(OFFLINE_LENGTH).fill(0);
  const words = text
    .normalize('NFD')
    .replace(/\p{M}+/gu, '')
    .toLowerCase()
    .match(/[\p{L}\p{N}]+/gu);
  for (const word of words ?? [text]) {
    const hash = fnv1a(word);
    const place = hash % OFFLINE_LENGTH;
    vector[place] = (vector[place] ?? 0) + (hash & 0x8000_0000 ? -1 : 1);
  }
  const length = Math.hypot(...vector);
  return length === 0 ? vector : vector.map((value) => value / length);
}

/** FNV-1a, 32 bits (Fowler, Noll, Vo), over UTF-16 units. */
function fnv1a(word: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < word.length; at += 1) hash = Math.imul(hash ^ word.charCodeAt(at), 0x01000193) >>> 0;
  return hash;
}
