/** Reads a command's words and options; what it does not know is refused, not skipped. */
import { parseArgs } from 'node:util';
import { usage } from './command.ts';

const OPTIONS = {
  file: { type: 'string', short: 'f' },
  output: { type: 'string', short: 'o' },
  tenant: { type: 'string', short: 't' },
  tier: { type: 'string' },
  url: { type: 'string' },
  limit: { type: 'string' },
  json: { type: 'boolean' },
  all: { type: 'boolean' },
  yes: { type: 'boolean' },
  ask: { type: 'boolean' },
  /** May be given several times. */
  provider: { type: 'string', multiple: true },
  'dry-run': { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

export type OptionName = keyof typeof OPTIONS;

export interface Parsed {
  readonly words: readonly string[];
  readonly options: {
    readonly [N in OptionName]?: (typeof OPTIONS)[N] extends { readonly multiple: true }
      ? readonly string[]
      : (typeof OPTIONS)[N]['type'] extends 'string'
        ? string
        : boolean;
  };
}

/** Parses everything after `nooble`. Throws a usage error for an unknown option, or one without its value. */
export function parseOptions(args: readonly string[]): Parsed {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: OPTIONS,
      allowPositionals: true,
    });
    return { words: positionals, options: values };
  } catch (error) {
    const first = error instanceof Error ? (error.message.split('. ')[0] ?? '') : String(error);
    throw usage(`${first.replace(/\.$/, '')}.`);
  }
}

/** Refuses options that the command does not take. */
export function allowOnly({ options }: Parsed, allowed: readonly OptionName[], command: string): void {
  const strange = Object.keys(options).find((name) => !allowed.some((one) => one === name));
  if (strange !== undefined) throw usage(`\`nooble ${command}\` takes no --${strange}.`);
}
