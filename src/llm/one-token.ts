/** Asks a model for one token, to see whether it answers: for those who set a node up. */
import { HumanMessage } from '@langchain/core/messages';
import { RefusalError } from '../domain/errors.ts';
import { tenantIdSchema } from '../domain/ids.ts';
import type { ModelTable } from '../domain/models.ts';
import type { ProviderTable } from '../domain/providers.ts';
import type { Answer } from './completions/answer.ts';
import type { Proxies } from './completions/connections.ts';
import { ModelFailure } from './model-errors.ts';
import { createModels, type ModelProvider } from './models.ts';

interface OneTokenSettings {
  readonly providers: ProviderTable;
  readonly table: ModelTable;
  readonly proxies: Proxies;
}

interface OneTokenQuestion {
  readonly provider: string;
  readonly model: string;
  readonly timeoutMs: number;
}

/** Models that think first refuse a limit under which no answer fits. */
const TOKENS = [1, 256];
const BUDGET_TOKENS = 4_096;
/** No tenant asks. */
const OPERATOR = tenantIdSchema.parse('operator');
const SILENT = { onChunk() {}, onText() {}, onReasoning() {}, onAgain() {} };

/** What came back, in words: of the endpoint its status and code, and nothing else that it says. Never rejects. */
export async function askOneToken(
  settings: OneTokenSettings,
  question: OneTokenQuestion,
): Promise<{ readonly isAnswer: boolean; readonly text: string }> {
  const models = createModels(settings, { now: Date.now });
  const startedMs = performance.now();
  try {
    const { finish, usage } = await ask(models, question);
    const took = Math.round(performance.now() - startedMs);
    const tokens = usage ? `, ${usage.total} tokens` : '';
    return { isAnswer: true, text: `answers (${finish}${tokens}, ${took} ms)` };
  } catch (error) {
    return { isAnswer: false, text: textOf(error, question.timeoutMs) };
  } finally {
    await models.close();
  }
}

async function ask(models: ModelProvider, { provider, model, timeoutMs }: OneTokenQuestion): Promise<Answer> {
  const signal = AbortSignal.timeout(timeoutMs);
  for (const [tries, maxTokens] of TOKENS.entries())
    try {
      return await models.model({ provider, model, temperature: 1, maxTokens }).ask(
        {
          messages: [new HumanMessage('Hi')],
          tools: [],
          signal,
          mayBeEmpty: true,
          budgetTokens: BUDGET_TOKENS,
          tenantId: OPERATOR,
        },
        SILENT,
      );
    } catch (error) {
      const isLast = tries === TOKENS.length - 1;
      if (isLast || !(error instanceof ModelFailure) || error.reason !== '400') throw error;
    }
  throw new Error('unreachable');
}

function textOf(error: unknown, timeoutMs: number): string {
  if (error instanceof Error && error.name === 'TimeoutError')
    return `has not answered within ${timeoutMs / 1000} s`;
  if (!(error instanceof RefusalError)) return 'can not be asked';
  const { code, message } = error.data;
  const status = error instanceof ModelFailure ? ` (${error.reason})` : '';
  return `does not answer: ${code}${status}. ${message}`;
}
