/** What nodes say to one another past the database: items in numbered bundles, and the inboxes that bundles are put into. */
import { z } from 'zod';
import { errorDataSchema } from '../domain/errors.ts';
import { sessionIdSchema, tenantIdSchema } from '../domain/ids.ts';
import type { Boot } from './cluster.ts';

/** Raised where an older node could not read what is said. A bundle of a higher version is read by nobody here. */
export const LINKS_VERSION = 1;

const count = z.number().int().nonnegative();

/**
 * A frame as its owner wrote it, once for all: `text` is the whole of what stands on the wire, and the rest is what
 * has to be known of it on the way.
 */
export interface CrossingFrame {
  readonly seq: number | undefined;
  readonly type: string;
  readonly atMs: number;
  readonly taskId: string | undefined;
  readonly text: string;
}

/** A client, by the name that its gateway has for it, and which of its attachments is meant. */
export type Attachment = readonly [clientId: string, generation: number];

/** Frames for clients of one gateway. What must not be torn apart stands in one item. */
export interface FramesItem {
  readonly kind: 'frames';
  readonly to: readonly Attachment[];
  readonly frames: readonly CrossingFrame[];
}

/** A question. `of` names its kind: one that the receiver does not know is answered `unsupported`. */
const requestItemSchema = z.object({
  kind: z.literal('request'),
  id: count,
  of: z.string(),
  body: z.unknown(),
});

/** `notMine`: the session is not owned there (any more). */
const answerSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('ok'), value: z.unknown() }),
  z.object({ type: z.literal('notMine') }),
  z.object({ type: z.literal('refused'), error: errorDataSchema }),
  z.object({ type: z.literal('unsupported') }),
]);

const attachmentSchema = z.tuple([z.string(), count]).readonly();

const otherItemSchema = z.discriminatedUnion('kind', [
  requestItemSchema,
  z.object({ kind: z.literal('reply'), id: count, answer: answerSchema }),
  /** A client of the sender watches no more. */
  z.object({
    kind: z.literal('detach'),
    tenantId: tenantIdSchema,
    sessionId: sessionIdSchema,
    clientId: z.string(),
  }),
  /** The owner lets clients of the receiver go. */
  z.object({
    kind: z.literal('close'),
    to: z.array(attachmentSchema),
    /** As on a WebSocket. */
    code: z.number().int(),
  }),
  /** All that the sender has of the receiver's clients: what the receiver does not know it detaches. */
  z.object({
    kind: z.literal('guests'),
    clients: z.array(
      z.object({ tenantId: tenantIdSchema, sessionId: sessionIdSchema, clientId: z.string() }),
    ),
  }),
  /** For everybody; `of` names its kind. */
  z.object({ kind: z.literal('broadcast'), of: z.string(), tenantId: tenantIdSchema, body: z.unknown() }),
  /** Nothing but a number: it shows what was lost before it. */
  z.object({ kind: z.literal('tick') }),
]);

/** What came back, from whoever was asked. */
export type LinkAnswer = z.infer<typeof answerSchema>;
export type RequestItem = z.infer<typeof requestItemSchema>;
export type LinkItem = FramesItem | z.infer<typeof otherItemSchema>;

/** An item of any kind but `frames`, out of what another node wrote; undefined where it is none that is known. */
export const readItem = (value: unknown): LinkItem | undefined => otherItemSchema.safeParse(value).data;

/** Items on their way together. Each direction counts its bundles from 1, under an id that is random per counting. */
export interface Bundle {
  readonly from: Boot;
  readonly linkId: string;
  readonly n: number;
  readonly items: readonly LinkItem[];
}

/** `malformed`: no bundle at all. `newer`: of a version, or an item of a kind, that this node does not know. */
export type InboxProblem = 'malformed' | 'newer';

/**
 * The inboxes of all boots, one each.
 * Order: what one node puts into one inbox is read in that order. Delivery: a bundle may be lost, and may come twice.
 * close(): reads no more and disconnects. Safe to call twice.
 */
export interface Inboxes {
  /** Reads the inbox of that boot from now on, and no other. Resolves when it is being read, or will be by itself. */
  read(boot: Boot, listener: (bundle: Bundle) => void): Promise<void>;
  /**
   * Resolves with the number of bundles that wait there by now. Rejects with TRANSPORT_UNAVAILABLE, at once while the
   * medium is away; the bundle may have arrived all the same.
   */
  push(to: Boot, bundle: Bundle): Promise<number>;
  close(): Promise<void>;
}

/** What became of what could not be read; each is dropped. */
export interface InboxMeter {
  dropped(problem: InboxProblem, count: number): void;
}
