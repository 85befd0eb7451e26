/** What nodes ask each other about sessions and turns over their links: the bodies, and the answers of who has them. */
import { z } from 'zod';
import { errorDataSchema, refusal } from '../../src/domain/errors.ts';
import { eventData } from '../../src/domain/frames.ts';
import { sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import { turnRecordSchema, turnStatusSchema } from '../../src/domain/turn.ts';
import { readRequest } from '../../src/domain/turn-request.ts';
import type { Boot, LocalSessions } from '../../src/ports/cluster.ts';
import type { LinkAnswer } from '../../src/ports/links.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import { attachBodySchema, type Guests } from './guests.ts';
import type { LinksDeps } from './links.ts';

/** `watch`: an observer that is to be attached before the turn's first frame. */
const sayBodySchema = z.object({
  request: z.unknown().transform((stored, context) => {
    try {
      return readRequest(stored);
    } catch {
      context.addIssue('is no turn request');
      return z.NEVER;
    }
  }),
  watch: attachBodySchema.optional(),
});
const turnBodySchema = z.object({ tenantId: tenantIdSchema, taskId: taskIdSchema });
const sessionBodySchema = z.object({ tenantId: tenantIdSchema, sessionId: sessionIdSchema });

const refusedSchema = z.object({ ok: z.literal(false), error: errorDataSchema });
const refusedTurnSchema = refusedSchema.extend({ taskId: taskIdSchema });

/** A SayReply that crossed. */
export const sayReplySchema = z.union([
  z.object({
    ok: z.literal(true),
    taskId: taskIdSchema,
    accepted: eventData['chat.accepted'],
    replying: z.literal(true).exactOptional(),
  }),
  refusedTurnSchema,
]);

/** A CancelReply that crossed. */
export const cancelReplySchema = z.union([
  z.object({ ok: z.literal(true), taskId: taskIdSchema, status: turnStatusSchema, abortMs: z.number() }),
  refusedTurnSchema,
]);

const toolSchema = z.object({ callId: z.string(), tool: z.string() });

/** A TurnStanding that crossed; null: the turn ended meanwhile. */
export const standingSchema = turnRecordSchema
  .and(z.object({ tools: z.array(toolSchema).exactOptional() }))
  .nullable();

/** The reply to `forget` that crossed. */
export const forgottenSchema = z.union([z.object({ ok: z.literal(true), value: z.null() }), refusedSchema]);

interface QuestionsDeps {
  readonly local: Pick<LocalSessions, 'has' | 'say' | 'cancel' | 'inquire' | 'forget'>;
  readonly guests: Pick<Guests, 'attach' | 'watcher' | 'detach'>;
  readonly log: Log;
}

type Answer = (answer: LinkAnswer) => void;

/** Answers what other nodes ask, out of the sessions that live here; nothing comes to life for it. */
export function createQuestions({ local, guests, log }: QuestionsDeps): LinksDeps['onRequest'] {
  function settle(asked: Promise<unknown> | undefined, answer: Answer): void {
    if (!asked) return answer({ type: 'notMine' });
    asked.then(
      (value) => answer({ type: 'ok', value }),
      (error: unknown) => {
        log.error({ err: error }, 'what another node asked broke something');
        answer({ type: 'refused', error: refusal('INTERNAL') });
      },
    );
  }

  function say(from: Boot, { request, watch }: z.infer<typeof sayBodySchema>, answer: Answer): void {
    const { tenantId } = request.caller;
    const key = { tenantId, sessionId: request.sessionId };
    const isOfTurn = watch?.caller.tenantId === tenantId && watch.sessionId === request.sessionId;
    if (watch && !isOfTurn) return answer({ type: 'refused', error: refusal('INVALID_REQUEST') });
    if (!local.has(key)) return answer({ type: 'notMine' });
    const said = local.say(request, watch && guests.watcher(from, watch));
    const leave = (): void => void (watch && guests.detach(from, key, watch.clientId));
    if (!said) leave();
    const told = said?.then((reply) => {
      // What was said before is read by whoever asks: nothing of it is heard by this observer.
      if (!reply.ok || reply.accepted.deduplicated) leave();
      return reply;
    });
    settle(told, answer);
  }

  return (from, { of, body }, answer) => {
    const read = <T>(schema: z.ZodType<T>, act: (body: T) => void): true => {
      const { data } = schema.safeParse(body);
      if (data) act(data);
      else answer({ type: 'refused', error: refusal('INVALID_REQUEST') });
      return true;
    };
    switch (of) {
      case 'attach':
        guests.attach(from, body, answer);
        return true;
      case 'say':
        return read(sayBodySchema, (asked) => say(from, asked, answer));
      case 'cancel':
        return read(turnBodySchema, ({ tenantId, taskId }) => settle(local.cancel(tenantId, taskId), answer));
      case 'inquire':
        return read(turnBodySchema, ({ tenantId, taskId }) =>
          settle(local.inquire(tenantId, taskId), answer),
        );
      case 'forget':
        return read(sessionBodySchema, (key) =>
          settle(local.has(key) ? local.forget(key) : undefined, answer),
        );
      default:
        return false;
    }
  };
}
