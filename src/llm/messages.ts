/** From plain records to LangChain messages, made anew for every turn: a session that held them would cost ten times as much. */
import {
  AIMessage,
  type BaseMessage,
  HumanMessage,
  SystemMessage,
  ToolMessage,
} from '@langchain/core/messages';
import type { Message } from '../domain/conversation.ts';
import { defined } from '../domain/defined.ts';
import { type SentAlong, sentAlongKwargs } from './completions/body.ts';
import { withTags } from './completions/think-tags.ts';
import type { ModelAnswer } from './model-call.ts';
import { parseArgs, type ToolCall } from './tool-calls.ts';

/**
 * The conversation as the model is given it: the system prompt, where there is one, then the history. What got no answer
 * is joined to what was said next, and answers without a word stay out of it: endpoints refuse two questions in a row.
 * `images` come with the last message. All text is well-formed Unicode.
 */
export function toModelMessages(
  prompt: string,
  history: readonly Message[],
  images: readonly string[] = [],
): BaseMessage[] {
  const messages: BaseMessage[] = prompt === '' ? [] : [new SystemMessage(prompt.toWellFormed())];
  for (const { role, content } of inTurn(history)) {
    const text = content.toWellFormed();
    messages.push(role === 'user' ? new HumanMessage(text) : new AIMessage(text));
  }
  const last = messages.at(-1);
  if (images.length > 0 && last) messages.splice(-1, 1, withImages(last.text, images));
  return messages;
}

const withImages = (text: string, images: readonly string[]): HumanMessage =>
  new HumanMessage({
    content: [{ type: 'text', text }, ...images.map((url) => ({ type: 'image_url', image_url: { url } }))],
  });

type Said = Pick<Message, 'role' | 'content'>;

/** Questions and answers in turn, beginning with a question: what was said twice in a row is one message. */
function inTurn(history: readonly Message[]): readonly Said[] {
  if (isInTurn(history)) return history;
  const turns: { role: Message['role']; content: string }[] = [];
  for (const { role, content } of history) {
    const last = turns.at(-1);
    if (role === 'assistant' && (!WORD.test(content) || !last)) continue;
    if (last?.role === role) last.content = `${last.content}\n\n${content}`;
    else turns.push({ role, content });
  }
  return turns;
}

/** Anything but blanks. */
const WORD = /\S/;

/** Nearly every history is, and needs no copy. */
function isInTurn(history: readonly Message[]): boolean {
  let isAnswer = false;
  for (const { role, content } of history) {
    if ((role === 'assistant') !== isAnswer || (isAnswer && !WORD.test(content))) return false;
    isAnswer = !isAnswer;
  }
  return true;
}

/** The model's own message with its tool calls. Arguments that were no JSON object go back as `{}`. */
export function toolCallMessage({ text, calls, thoughts }: ModelAnswer): AIMessage {
  const extras = Object.fromEntries(calls.flatMap(({ id, extra }) => (extra ? [[id, extra]] : [])));
  const sent: SentAlong = defined({
    thoughts: thoughts && {
      ...(thoughts.text === '' || thoughts.tags ? {} : { [thoughts.field]: thoughts.text.toWellFormed() }),
      ...(thoughts.details.length === 0 ? {} : { reasoning_details: thoughts.details }),
    },
    extras: Object.keys(extras).length > 0 ? extras : undefined,
  });
  const tags = calls.length > 0 ? thoughts?.tags : undefined;
  return new AIMessage({
    content: (tags ? withTags(tags, thoughts?.text ?? '', text) : text).toWellFormed(),
    additional_kwargs: Object.keys(sent).length > 0 ? sentAlongKwargs(sent) : {},
    tool_calls: calls.map(({ id, name, args }) => ({
      type: 'tool_call',
      id,
      name,
      args: parseArgs(args) ?? {},
    })),
  });
}

/** What a tool gave back, for the model. */
export const toolResultMessage = (call: ToolCall, content: string): ToolMessage =>
  new ToolMessage({ content: content.toWellFormed(), tool_call_id: call.id, name: call.name });

/** The text of a message, read where it is: LangChain's getter goes over plain text as if it were blocks. '' for none. */
export function textOf(message: BaseMessage | undefined): string {
  const content = message?.content ?? '';
  return typeof content === 'string' ? content : (message?.text ?? '');
}
