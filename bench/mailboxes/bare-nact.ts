/** The floor: nact itself, with nothing around it. */
import { dispatch, query, type Ref, spawn, start, stop } from 'nact';
import { latch, type MailboxLibrary, type Parent } from './mailbox.ts';

type Message =
  | { readonly type: 'count'; readonly until: number }
  | { readonly type: 'ask'; readonly sender: Ref<number> };

export function bareNact(): MailboxLibrary {
  const system = start();
  let spawned = 0;

  function parent(): Parent {
    const done = latch();
    const gone = latch();
    let told = 0;
    let reached = 0;
    let living = 0;
    const children: Ref<Message>[] = [];
    spawned += 1;
    const count = (state = 0, message: Message): number => {
      if (message.type === 'ask') {
        dispatch(message.sender, state);
        return state;
      }
      if (state + 1 === message.until) done.open();
      return state + 1;
    };
    const countChild = (state = 0, _: Message): number => {
      reached += 1;
      if (reached === children.length) done.open();
      return state + 1;
    };
    const afterStop = (): void => {
      living -= 1;
      if (living === 0) gone.open();
    };
    const self: Ref<Message> = spawn(system, count, `parent-${spawned}`);
    return {
      tell(number) {
        told += number;
        const waiting = done.wait();
        for (let i = 0; i < number; i++) dispatch(self, { type: 'count', until: told });
        return waiting;
      },
      ask: () => query(self, (sender: Ref<number>): Message => ({ type: 'ask', sender }), 5000),
      spawn(index) {
        living += 1;
        children.push(spawn(self, countChild, `child-${index}`, { afterStop }));
      },
      tellChildren() {
        reached = 0;
        const waiting = done.wait();
        for (const child of children) dispatch(child, { type: 'count', until: 1 });
        return waiting;
      },
      stopChildren() {
        const waiting = gone.wait();
        for (const child of children.splice(0)) stop(child);
        return waiting;
      },
    };
  }

  return {
    name: 'bare nact',
    counter: parent,
    parent,
    close: async () => stop(system),
  };
}
