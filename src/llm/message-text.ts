/** The text of a LangChain message, read where it is: their own getter goes over plain text as if it were blocks. */
import type { BaseMessage } from '@langchain/core/messages';

/** '' where there is no message. Of content in parts, LangChain's reading. */
export function textOf(message: BaseMessage | undefined): string {
  const content = message?.content ?? '';
  return typeof content === 'string' ? content : (message?.text ?? '');
}
