/** The work of `execution.agent_run` by workers without a runtime: LangChain's `model.stream()` on the same model. */
import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { streamed } from '../peers/answers.ts';
import { peerModel } from '../peers/model.ts';
import { agentRunAction, responseIn } from './agent-run.ts';
import { openBullAnswerer, openBullAsker } from './bullmq.ts';
import type { Exchange } from './contender.ts';
import { openListAnswerer, openListAsker } from './lists.ts';
import { type Fields, fieldsOf } from './messages.ts';

const LISTS = 'bench:lists-model';

const compose = (): Fields => agentRunAction(randomUUID());

/** Runs the model on an action's input; `token` hears each piece as it comes. */
function createRunner(token: (text: string, request: Fields) => void) {
  const answer = streamed(peerModel());
  return async (request: Fields): Promise<Fields> => {
    let response = '';
    await answer(String(fieldsOf(request.data).input), ({ type, data }) => {
      if (type === 'chat.delta') token(String(data.content), request);
      else response = String(data.content);
    });
    return { ...request, action_type: 'execution.callback', data: { status: 'success', response } };
  };
}

/** The floor. */
export const listsModel: Exchange = {
  asker: (url) => openListAsker(url, { queue: LISTS, compose, read: responseIn }),
  answerer: (url) =>
    openListAnswerer(
      url,
      LISTS,
      createRunner(() => {}),
    ),
};

/** `published`: each token goes to a channel of its task too, for whoever holds the user's socket. */
export const bullmqModel = (published: boolean): Exchange => {
  const name = published ? 'bench-model-published' : 'bench-model';
  return {
    asker: (url) => openBullAsker(url, name, compose, (result) => responseIn(fieldsOf(result))),
    async answerer(url) {
      const publisher = published ? new Redis(url, { maxRetriesPerRequest: null }) : undefined;
      const publish = (text: string, { task_id: task }: Fields): void => {
        publisher?.publish(`bench:tokens:${task}`, text).catch((error: unknown) => console.error(error));
      };
      await openBullAnswerer(url, name, createRunner(publish));
    },
  };
};
