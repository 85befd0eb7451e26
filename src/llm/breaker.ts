/** Circuit breakers of model endpoints, one for each provider and key: what is down is not asked by every turn. */
import {
  type CircuitBreakerPolicy,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  handleWhen,
  isBrokenCircuitError,
} from 'cockatiel';
import { LRUCache } from 'lru-cache';
import type { ChatModel } from './chat-model.ts';
import { circuitOpen, ModelFailure } from './model-errors.ts';

/** After so long one request finds out whether the endpoint is back. */
const HALF_OPEN_AFTER_MS = 5_000;
const MAX_BREAKERS = 500;

export interface Breakers {
  /** The same model, not asked while the circuit of `key` is open. */
  guard(key: string, model: ChatModel): ChatModel;
  /** The keys whose circuits are open now. */
  open(): readonly string[];
}

/** A circuit opens after `failures` in a row: connections that break, 5xx and the like; not limits, not bad requests. */
export function createBreakers({ failures }: { readonly failures: number }): Breakers {
  const policies = new LRUCache<string, CircuitBreakerPolicy>({ max: MAX_BREAKERS });
  const policyOf = (key: string): CircuitBreakerPolicy => {
    const known = policies.get(key);
    if (known) return known;
    const policy = circuitBreaker(
      handleWhen((error) => error instanceof ModelFailure && error.data.code === 'MODEL_UNAVAILABLE'),
      { halfOpenAfter: HALF_OPEN_AFTER_MS, breaker: new ConsecutiveBreaker(failures) },
    );
    policies.set(key, policy);
    return policy;
  };
  return {
    guard: (key, model) => ({
      ...model,
      async ask(request, sink) {
        try {
          return await policyOf(key).execute(() => model.ask(request, sink));
        } catch (error) {
          throw isBrokenCircuitError(error) ? circuitOpen(HALF_OPEN_AFTER_MS) : error;
        }
      },
    }),
    open: () => [...policies].flatMap(([key, { state }]) => (state === CircuitState.Open ? [key] : [])),
  };
}
