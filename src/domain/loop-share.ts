/**
 * What actors and streams may do in one turn of the event loop, and whose turn it is then. Whoever sends a message waits
 * for several turns of the loop: hundreds of streams of one tenant must not make each of them long for all.
 */
import type { TenantId } from './ids.ts';

type Task = () => void;

export class LoopShare {
  readonly #perTurn: number;
  #left: number;
  /** What waits, by tenant, the tenant whose turn it is first. */
  readonly #due = new Map<TenantId, Task[]>();
  /** What was begun, and goes before all that waits. */
  #begun: Task | undefined;
  #immediate: NodeJS.Immediate | undefined;
  /** Tells turns of the loop apart in which something was done. */
  turn = 0;

  /** `perTurn`: pieces of work in one turn of the loop. */
  constructor(perTurn: number) {
    this.#perTurn = perTurn;
    this.#left = perTurn;
  }

  /** Counts a piece of work that was done at once. False: that was the last for this turn of the loop. */
  take(): boolean {
    this.#left -= 1;
    this.#atTurnsEnd();
    return this.#left > 0;
  }

  /** Runs a task in one of the next turns of the loop: in the order of each tenant's tasks, tenants in turn. */
  soon(tenantId: TenantId, task: Task): void {
    const tasks = this.#due.get(tenantId);
    if (tasks) tasks.push(task);
    else this.#due.set(tenantId, [task]);
    this.#atTurnsEnd();
  }

  /** Runs the rest of a task in the next turn of the loop, before any other is begun. At most one at a time. */
  goOn(task: Task): void {
    this.#begun = task;
    this.#atTurnsEnd();
  }

  #atTurnsEnd(): void {
    this.#immediate ??= setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#immediate = undefined;
    this.#left = this.#perTurn;
    this.turn += 1;
    const begun = this.#begun;
    if (begun) {
      this.#begun = undefined;
      this.#left -= 1;
      begun();
    }
    while (this.#left > 0) {
      const [next] = this.#due;
      if (!next) return;
      const [tenantId, tasks] = next;
      const task = tasks.shift();
      this.#due.delete(tenantId);
      if (tasks.length > 0) this.#due.set(tenantId, tasks);
      this.#left -= 1;
      task?.();
    }
    this.#atTurnsEnd();
  };
}
