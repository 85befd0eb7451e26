/** Lines that a node or a process says one by one, or frames that come, and the wait for one of them. */

export interface Lines<L> {
  /** Everything said so far. */
  readonly lines: readonly L[];
  /** Resolves to the first line, past or future, that fits (or has the text). Rejects once nobody can say it any more. */
  line(wanted: string | ((line: L) => boolean)): Promise<L>;
}

/**
 * Waits for lines of a list that grows. `textOf`: what a wanted text is compared with. `look`: the list has grown.
 * `end`: it will not grow any more, with the reason.
 */
export function watchLines<L>(lines: readonly L[], textOf: (line: L) => string) {
  const watchers = new Set<() => void>();
  let over: (() => string) | undefined;
  const look = (): void => {
    for (const watcher of [...watchers]) watcher();
  };
  const line: Lines<L>['line'] = (wanted) => {
    const fits = typeof wanted === 'string' ? (line: L) => textOf(line) === wanted : wanted;
    let seen = 0;
    return new Promise((resolve, reject) => {
      const watcher = (): void => {
        const fresh = lines.slice(seen);
        seen = lines.length;
        const found = fresh.find(fits);
        if (found === undefined && !over) return;
        watchers.delete(watcher);
        if (found !== undefined) resolve(found);
        else reject(new Error(`over without ${wanted}: ${over?.()}`));
      };
      watchers.add(watcher);
      watcher();
    });
  };
  const end = (reason: () => string): void => {
    over = reason;
    look();
  };
  return { line, look, end };
}

export function lineLog<L>(textOf: (line: L) => string) {
  const lines: L[] = [];
  const { line, look, end } = watchLines(lines, textOf);
  const add = (said: L): void => {
    lines.push(said);
    look();
  };
  return { lines, line, add, end };
}
