/** LangChain's callbacks hear of every call of a model, whichever loop makes it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BaseCallbackHandler } from '@langchain/core/callbacks/base';
import { registerConfigureHook, setContextVariable } from '@langchain/core/context';
import { refuse, say } from '../support/stub-model.ts';
import { until } from '../support/until.ts';
import { answerOf, errorOf, startBench } from './harness.ts';

class Listener extends BaseCallbackHandler {
  name = 'listener';
  readonly heard: string[] = [];
  override handleChatModelStart(): void {
    this.heard.push('start');
  }
  override handleLLMNewToken(token: string): void {
    this.heard.push(token);
  }
  override handleLLMEnd({ generations }: { generations: { text: string }[][] }): void {
    this.heard.push(`end: ${generations[0]?.[0]?.text}`);
  }
  override handleLLMError(): void {
    this.heard.push('error');
  }
}

registerConfigureHook({ contextVar: 'listener' });

for (const type of ['conversational', 'langchain'] as const)
  test(`${type}: a call is told from its start over its tokens to its end`, async () => {
    await using bench = await startBench();
    const listener = new Listener();
    setContextVariable('listener', listener);
    bench.stub.next(say('One two.', { chunks: 2 }));
    assert.equal(answerOf(await bench.start({ type }).done), 'One two.');
    await until('the end', () => listener.heard.at(-1) === 'end: One two.');
    assert.deepEqual([listener.heard[0], listener.heard.slice(1, -1).join('')], ['start', 'One two.']);

    listener.heard.length = 0;
    bench.stub.next(refuse(400));
    assert.equal(errorOf(await bench.start({ type }).done).code, 'MODEL_ERROR');
    await until('the error', () => listener.heard.includes('error'));
    setContextVariable('listener', undefined);
  });
