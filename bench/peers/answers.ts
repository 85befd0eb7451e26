/** What the peers answer a message with: prebuilt frames, or a model through LangChain's ways to stream. */
import type { BaseChatModel } from '@langchain/core/language_models/chat_models';
import { type BaseMessage, HumanMessage } from '@langchain/core/messages';
import type { StructuredToolInterface } from '@langchain/core/tools';
import { createAgent } from 'langchain';

/** A frame in our shape, as little of it as a client needs. */
export interface PeerFrame {
  readonly type: 'session.ready' | 'chat.delta' | 'chat.response';
  readonly data: Readonly<Record<string, unknown>>;
}

/** Sends an answer's frames: deltas, then the response. */
export type Answer = (message: string, emit: (frame: PeerFrame) => void) => Promise<void>;

export const delta = (content: string): PeerFrame => ({ type: 'chat.delta', data: { content } });
export const response = (content: string): PeerFrame => ({
  type: 'chat.response',
  data: { content, role: 'assistant' },
});
export const READY: PeerFrame = { type: 'session.ready', data: {} };

/** The getter `text` alone would take half of a streamed turn's time: it translates the content of every provider. */
const textOf = ({ content }: BaseMessage): string => (typeof content === 'string' ? content : '');

/** `model.stream()`: what an application on LangChain does by the book. */
export const streamed =
  (model: BaseChatModel): Answer =>
  async (message, emit) => {
    let content = '';
    for await (const chunk of await model.stream([new HumanMessage(message)])) {
      const text = textOf(chunk);
      if (text === '') continue;
      content += text;
      emit(delta(text));
    }
    emit(response(content));
  };

/** The model's own generator, past LangChain's runnables, callbacks and tracing. */
export const rawChunks =
  (model: BaseChatModel): Answer =>
  async (message, emit) => {
    let content = '';
    for await (const chunk of model._streamResponseChunks([new HumanMessage(message)], {})) {
      if (chunk.text === '') continue;
      content += chunk.text;
      emit(delta(chunk.text));
    }
    emit(response(content));
  };

/** `createAgent`, streamed by message chunks; results of tools are messages too. */
export const byAgent = (model: BaseChatModel, tools: StructuredToolInterface[] = []): Answer => {
  const agent = createAgent({ model, tools });
  return async (message, emit) => {
    let content = '';
    const stream = await agent.stream({ messages: [new HumanMessage(message)] }, { streamMode: 'messages' });
    for await (const [chunk] of stream) {
      const text = chunk.type === 'ai' ? textOf(chunk) : '';
      if (text === '') continue;
      content += text;
      emit(delta(text));
    }
    emit(response(content));
  };
};
