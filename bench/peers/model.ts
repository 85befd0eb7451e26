/** The offline model that a peer process was started for: the same class that our node runs. */
import { OfflineModel } from '../../src/llm/offline-model.ts';

export const peerModel = (): OfflineModel =>
  new OfflineModel({ model: process.env.BENCH_MODEL ?? 'offline-50x0' });
