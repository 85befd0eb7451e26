/** From plain records to LangChain messages, made anew for every turn: a session that held them would cost ten times as much. */
import {
  AIMessage,
  type BaseMessage,
  HumanMessage,
  SystemMessage,
  ToolMessage,
} from '@langchain/core/messages';
import type { Message } from '../domain/conversation.ts';
import { parseArgs, type ToolCall } from './tool-calls.ts';

/** The conversation as the model is given it: the system prompt, where there is one, then the history. */
export function toModelMessages(prompt: string, history: readonly Message[]): BaseMessage[] {
  const messages: BaseMessage[] = prompt === '' ? [] : [new SystemMessage(prompt)];
  for (const { role, content } of history)
    messages.push(role === 'user' ? new HumanMessage(content) : new AIMessage(content));
  return messages;
}

/** The model's own message with its tool calls. Arguments that were no JSON object go back as `{}`. */
export function toolCallMessage(text: string, calls: readonly ToolCall[]): AIMessage {
  return new AIMessage({
    content: text,
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
  new ToolMessage({ content, tool_call_id: call.id, name: call.name });
