/** Lines that a node or a process says one by one, and the wait for one of them. */

export interface Lines<L> {
  /** Everything said so far. */
  readonly lines: readonly L[];
  /** Resolves to the first line, past or future, that fits (or has the text). Rejects once nobody can say it any more. */
  line(wanted: string | ((line: L) => boolean)): Promise<L>;
}

/** `textOf`: what a wanted text is compared with. `end`: nothing will be said from now on, with the reason. */
export function lineLog<L>(
  textOf: (line: L) => string,
): Lines<L> & { add(line: L): void; end(reason: () => string): void } {
  const lines: L[] = [];
  const watchers = new Set<() => void>();
  let over: (() => string) | undefined;
  const look = (): void => {
    for (const watcher of [...watchers]) watcher();
  };
  return {
    lines,
    add(line) {
      lines.push(line);
      look();
    },
    end(reason) {
      over = reason;
      look();
    },
    line(wanted) {
      const fits = typeof wanted === 'string' ? (line: L) => textOf(line) === wanted : wanted;
      let seen = 0;
      return new Promise((resolve, reject) => {
        const watcher = (): void => {
          const found = lines.slice(seen).find(fits);
          seen = lines.length;
          if (!found && !over) return;
          watchers.delete(watcher);
          if (found) resolve(found);
          else reject(new Error(`it ended without the line ${wanted}: ${over?.()}`));
        };
        watchers.add(watcher);
        watcher();
      });
    },
  };
}
