/** The benches, in the order in which they are run and reported. */
export const BENCHES = [
  'mailbox',
  'codec',
  'chat-turn',
  'model-stream',
  'memory',
  'cancel',
  'fairness',
  'store',
  'redis',
  'actions',
  'actions-chaos',
] as const;
