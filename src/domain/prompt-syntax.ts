/** How variables stand in a system prompt: `{{name}}` or `{{name.part}}`. */

/** One variable; src/llm/prompts.ts fills them in. */
const NAME = /^\s*[A-Za-z0-9_.-]{1,100}\s*$/;
/** Units of a prompt that a message quotes. */
const QUOTED = 30;

/** The first thing in a template that is not a variable although it begins like one, in words; null where all is well. */
export function promptIssue(template: string): string | null {
  let from = template.indexOf('{{');
  while (from >= 0) {
    // Of `{{{name}}}` the inner braces are the variable's, as they are when it is filled in.
    while (template[from + 2] === '{') from += 1;
    const quoted = template.slice(from, from + QUOTED);
    const to = template.indexOf('}}', from + 2);
    if (to < 0) return `a variable is never closed: ${quoted}`;
    const name = template.slice(from + 2, to);
    if (name.includes('{{')) return `a variable is not closed before the next one begins: ${quoted}`;
    if (!NAME.test(name))
      return `a variable is a name out of letters, digits and . _ - between {{ and }}, and this is not: ${quoted}`;
    from = template.indexOf('{{', to + 2);
  }
  return null;
}
