/** Quantiles of durations since the start of the node: a histogram of Node's own, 50 ns and no memory an observation. */
import { createHistogram } from 'node:perf_hooks';

/** In µs: from the smallest that is told apart to beyond an hour. */
const LOWEST_US = 1;
const HIGHEST_US = 4_000_000_000;
/** Two digits: within 1 %. */
const FIGURES = 2;

interface Quantiles {
  observe(ms: number): void;
  /** The duration in ms that a share (0 to 1) of all observations did not exceed, within 1 %; null before the first. */
  quantile(share: number): number | null;
}

export function createQuantiles(): Quantiles {
  const histogram = createHistogram({ lowest: LOWEST_US, highest: HIGHEST_US, figures: FIGURES });
  return {
    observe(ms) {
      const us = Math.round(ms * 1000) || LOWEST_US; // NaN counts as the smallest
      histogram.record(Math.min(HIGHEST_US, Math.max(LOWEST_US, us)));
    },
    quantile: (share) =>
      histogram.count === 0 ? null : Number((histogram.percentile(share * 100) / 1000).toPrecision(3)),
  };
}
