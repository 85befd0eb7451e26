/** What a contender of the exchange benches is: one process asks, another answers, over the same Redis. */
export interface Asker {
  /** Sends one request; resolves to what its reply says, rejects where that is an error. Waits as long as it takes. */
  ask(): Promise<string>;
}

export interface Exchange {
  /** Resolves when it can ask. */
  asker(redisUrl: string): Promise<Asker>;
  /** Resolves when it answers. Without it a node answers. */
  readonly answerer?: (redisUrl: string) => Promise<void>;
}
