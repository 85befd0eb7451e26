/** What the mailbox bench asks of an actor library, so that ours and bare nact do the same work. */

/** An actor that counts what it is told. */
export interface Counter {
  /** Sends `count` messages in one go; resolves once the last one has been handled. */
  tell(count: number): Promise<void>;
  /** Sends one message and waits for its reply. */
  ask(): Promise<unknown>;
}

export interface Parent extends Counter {
  /** Spawns a child from outside. */
  spawn(index: number): void;
  /** Tells every child one message; resolves once the last has been handled. */
  tellChildren(): Promise<void>;
  /** Stops the children one by one; resolves once all are gone. */
  stopChildren(): Promise<void>;
}

export interface MailboxLibrary {
  readonly name: string;
  counter(): Counter;
  /** A parent that was made for many children, where the library knows such. */
  parent(): Parent;
  close(): Promise<void>;
}

/** A promise that someone else resolves, again and again. */
export function latch() {
  let open = (): void => undefined;
  return {
    wait: () =>
      new Promise<void>((resolve) => {
        open = resolve;
      }),
    open: () => open(),
  };
}
