/** Turns and messages as the contract suite of the stores makes them, and short ways to write and read them. */
import { test } from 'node:test';
import type { Message } from '../../src/domain/conversation.ts';
import { agentIdSchema, sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import type { ReplySpec } from '../../src/domain/reply-spec.ts';
import type { TurnRecord } from '../../src/domain/turn.ts';
import type { Epoch, MessagePage, PageRequest, Store, Write, WriteOutcome } from '../../src/ports/store.ts';
import type { Stores } from '../../src/store/open.ts';

export const DAY = '2024-05-01';

export interface TurnName {
  readonly tenant: string;
  readonly session: string;
  readonly task: string;
}

export const named = (task: string, session = 's1', tenant = 'acme'): TurnName => ({ tenant, session, task });
export const tenantOf = (name: TurnName) => tenantIdSchema.parse(name.tenant);
export const sessionOf = (name: TurnName) => sessionIdSchema.parse(name.session);
export const taskOf = (name: TurnName) => taskIdSchema.parse(name.task);

export const turnOf = (name: TurnName, more: Partial<TurnRecord> = {}): TurnRecord => ({
  taskId: taskOf(name),
  tenantId: tenantOf(name),
  sessionId: sessionOf(name),
  agentId: agentIdSchema.parse('default'),
  status: 'processing',
  createdAtMs: 1_700_000_000_000,
  ...more,
});

export const message = (name: TurnName, role: Message['role'], content: string): Message => ({
  role,
  content,
  taskId: taskOf(name),
  atMs: 1_700_000_000_001,
});

/** Accepts a turn that asks `content`. */
export const accept = (
  store: Store,
  name: TurnName,
  content = `ask ${name.task}`,
  day = DAY,
  epoch?: Epoch,
): Promise<WriteOutcome> => store.commit(accepted(name, content, day, epoch));

/** Accepts a turn where the tenant's day has room for it. */
export const acceptWithin = (
  store: Store,
  name: TurnName,
  most: number,
  more: { readonly day?: string; readonly resumable?: true; readonly epoch?: Epoch } = {},
): Promise<WriteOutcome> =>
  store.commit({ ...accepted(name, `ask ${name.task}`, DAY, undefined), most, ...more });

const accepted = (
  name: TurnName,
  content: string,
  day: string,
  epoch: Epoch | undefined,
): Extract<Write, { type: 'turn-accepted' }> => ({
  type: 'turn-accepted',
  epoch,
  turn: turnOf(name),
  message: message(name, 'user', content),
  day,
});

export const answered = (name: TurnName, content: string): TurnRecord =>
  turnOf(name, {
    status: 'completed',
    finishedAtMs: 1_700_000_000_500,
    content,
    info: {
      execution_time_ms: 12,
      time_to_first_token_ms: null,
      iterations: 1,
      tools_used: ['calculator'],
      tokens_used: 7,
      model: 'offline-echo',
    },
  });

/** Ends a turn with an answer. */
export const answer = (
  store: Store,
  name: TurnName,
  content = `say ${name.task}`,
  replies?: readonly ReplySpec[],
  epoch?: Epoch,
): Promise<WriteOutcome> =>
  store.commit({
    type: 'turn-ended',
    epoch,
    turn: answered(name, content),
    message: message(name, 'assistant', content),
    ...(replies ? { replies } : {}),
  });

export const page = (
  store: Store,
  name: TurnName,
  request: Partial<PageRequest> = {},
): Promise<MessagePage | null> =>
  store.session(tenantOf(name), sessionOf(name), { limit: 100, before: undefined, ...request });

export const forget = (store: Store, name: TurnName): Promise<WriteOutcome> =>
  store.commit({ type: 'session-deleted', tenantId: tenantOf(name), sessionId: sessionOf(name) });

export const contents = (found: MessagePage | null): readonly string[] | null =>
  found?.messages.map((each) => each.content) ?? null;

/** One sentence of a contract, checked over stores of its own. */
export type Over<S = Store> = (sentence: string, body: (stores: S) => Promise<void>) => void;

/** Checks each sentence of the contract over what `open` opens for it alone; that is closed after it. */
export const overEach =
  <S extends { close(): Promise<void> }>(name: string, open: () => Promise<S>): Over<S> =>
  (sentence, body) => {
    test(`${name}: ${sentence}`, async () => {
      const stores = await open();
      try {
        await body(stores);
      } finally {
        await stores.close();
      }
    });
  };

/** The conversations of stores that end with them. */
export async function alone(open: () => Promise<Stores>): Promise<Store> {
  const stores = await open();
  return { ...stores.conversations, close: stores.close };
}
