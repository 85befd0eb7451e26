/** A load process, seen from the bench that started it. */
import { z } from 'zod';
import { end, heard, start } from '../kit/process.ts';
import { type Command, type CommandOf, type Reports, reportSchemas } from './commands.ts';

export interface Load {
  open(command: Omit<CommandOf<'open'>, 'do'>): Promise<Reports['open']>;
  verify(): Promise<Reports['verify']>;
  run(command: Omit<CommandOf<'run'>, 'do'>): Promise<Reports['run']>;
  turns(command: Omit<CommandOf<'turns'>, 'do'>): Promise<Reports['turns']>;
  activate(command: Omit<CommandOf<'activate'>, 'do'>): Promise<Reports['activate']>;
  update(command: Omit<CommandOf<'update'>, 'do'>): Promise<Reports['update']>;
  close(): Promise<Reports['close']>;
  end(): Promise<void>;
}

const answerSchema = z.union([z.object({ error: z.string() }), z.object({ report: z.unknown() })]);
const COMMAND_TIMEOUT_MS = 600_000;

/** Starts a load process on the load core. One command at a time. `nice` makes it yield to another one there. */
export async function startLoad(nice = 0): Promise<Load> {
  const child = start({ args: ['bench/load/main.ts'], core: 'load', nice });
  await heard(child, (message) => message, 30_000);

  async function ask(command: Command): Promise<unknown> {
    const answer = heard(child, (message) => answerSchema.parse(message), COMMAND_TIMEOUT_MS);
    child.send(command);
    const heardAnswer = await answer;
    if ('error' in heardAnswer) throw new Error(`load process: ${command.do}: ${heardAnswer.error}`);
    return heardAnswer.report;
  }

  return {
    open: async (command) => reportSchemas.open.parse(await ask({ do: 'open', ...command })),
    verify: async () => reportSchemas.verify.parse(await ask({ do: 'verify' })),
    run: async (command) => reportSchemas.run.parse(await ask({ do: 'run', ...command })),
    turns: async (command) => reportSchemas.turns.parse(await ask({ do: 'turns', ...command })),
    activate: async (command) => reportSchemas.activate.parse(await ask({ do: 'activate', ...command })),
    update: async (command) => reportSchemas.update.parse(await ask({ do: 'update', ...command })),
    close: async () => reportSchemas.close.parse(await ask({ do: 'close' })),
    end: () => end(child),
  };
}
