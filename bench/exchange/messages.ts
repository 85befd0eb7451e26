/** What all contenders carry: a DomainAction to a service of the size it has in earnest, and its reply. */
import { randomUUID } from 'node:crypto';
import { type DomainAction, domainActionSchema } from '../../src/domain/domain-action.ts';

const passage = (n: number): string =>
  `Passage ${n}: an invoice may be paid within thirty days of its date, by transfer or card, in the currency it names.`;

const template = domainActionSchema.parse({
  action_id: 'template',
  action_type: 'query.request',
  tenant_id: 'bench',
  tenant_tier: 'enterprise',
  session_id: 'session-0001',
  user_id: 'user-0001',
  agent_id: 'default',
  trace_id: randomUUID(),
  data: { query: 'Until when may I pay my invoice?', collections: ['billing', 'terms'], top_k: 3 },
  metadata: { source: 'bench' },
  timestamp: new Date().toISOString(),
});

const ANSWER = { success: true, answer: passage(0), passages: [passage(1), passage(2), passage(3)] };

/** Bytes of a request as JSON, about. */
export const BODY_BYTES = JSON.stringify(template).length;

export const question = (): DomainAction => ({
  ...template,
  action_id: randomUUID(),
  timestamp: new Date().toISOString(),
});

export const replyTo = ({ callback_queue: _, ...request }: DomainAction): DomainAction => ({
  ...request,
  action_id: randomUUID(),
  action_type: 'query.callback',
  data: ANSWER,
  timestamp: new Date().toISOString(),
});

/** The same for peers, which check nothing: any object is a request to them. */
export const looseReplyTo = (request: Fields): Fields => ({
  ...request,
  action_id: randomUUID(),
  action_type: 'query.callback',
  data: ANSWER,
  timestamp: new Date().toISOString(),
});

export type Fields = Readonly<Record<string, unknown>>;

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null;
const NONE: Fields = {};

/** An object's fields; none of anything else. */
export const fieldsOf = (value: unknown): Fields => (isFields(value) ? value : NONE);

/** What a reply to `question` says. Throws where it says nothing. */
export function answerIn(reply: unknown): string {
  const { answer } = fieldsOf(fieldsOf(reply).data);
  if (typeof answer !== 'string') throw new Error(`no answer: ${JSON.stringify(reply)}`);
  return answer;
}
