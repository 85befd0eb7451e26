/** Messages between the node and the thread that reads collections. */
import { z } from 'zod';

export const searchQuerySchema = z.object({
  tenant: z.string(),
  collections: z.array(z.string()),
  text: z.string(),
  limit: z.number().int().positive(),
});
export type SearchQuery = z.infer<typeof searchQuerySchema>;

const passageSchema = z.object({
  text: z.string(),
  source: z.string(),
  collection: z.string(),
  score: z.number(),
});

export const searchReplySchema = z.discriminatedUnion('type', [
  /** `leftOut`: files of these collections that are too large or too many to be read. */
  z.object({ type: z.literal('found'), passages: z.array(passageSchema), leftOut: z.number() }),
  /** A collection is not read to its end; the next query goes on from there. */
  z.object({ type: z.literal('reading'), collection: z.string() }),
  z.object({ type: z.literal('refused'), problem: z.string() }),
]);
export type SearchReply = z.infer<typeof searchReplySchema>;

export const searchIndexDataSchema = z.object({
  /** A folder for each tenant, in it one for each collection, in it texts: `{tenant}/{collection}/*.md`. */
  root: z.string(),
  /** How long one query may read files, in ms. */
  readMs: z.number(),
});
