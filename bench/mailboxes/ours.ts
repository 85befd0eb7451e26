/** Our wrapper: pure behaviours, bounded mailboxes, supervision, numbers. */
import type { ActorKind, Address } from '../../actors/runtime/actor.ts';
import { createActorSystem } from '../../actors/runtime/actor-system.ts';
import { latch, type MailboxLibrary, type Parent } from './mailbox.ts';

type Message =
  | { readonly type: 'count'; readonly until: number }
  | { readonly type: 'ask'; readonly replyTo: number };
type Effect =
  | { readonly type: 'reached' }
  | { readonly type: 'reply'; readonly replyTo: number; readonly value: number };

const NOTHING: readonly Effect[] = [];
const REACHED: readonly Effect[] = [{ type: 'reached' }];
const silent = { debug() {}, info() {}, warn() {}, error() {} };

export function ourLibrary(): MailboxLibrary {
  const system = createActorSystem({ clock: { now: () => Date.now() }, log: silent });
  let spawned = 0;

  const kindOf = (kind: string, onStopped?: () => void): ActorKind<number, Message, Effect> => ({
    kind,
    behaviour: (count, message) =>
      message.type === 'count'
        ? [count + 1, count + 1 === message.until ? REACHED : NOTHING]
        : [count, [{ type: 'reply', replyTo: message.replyTo, value: count }]],
    mailboxLimit: 4096,
    restarts: { max: 3, withinMs: 1000 },
    ...(kind === 'parent' ? { manyChildren: true } : {}),
    ...(onStopped ? { onStopped } : {}),
  });

  function parent(): Parent {
    const done = latch();
    const gone = latch();
    let told = 0;
    let living = 0;
    const children: Address<Message>[] = [];
    const interpret = (effect: Effect): void => {
      if (effect.type === 'reached') done.open();
      else system.reply(effect.replyTo, effect.value);
    };
    let reached = 0;
    let round = 0;
    const child = kindOf('child', () => {
      living -= 1;
      if (living === 0) gone.open();
    });
    spawned += 1;
    const self = system.spawn(null, kindOf('parent'), { name: `parent-${spawned}`, initial: 0, interpret });
    return {
      tell(count) {
        told += count;
        const waiting = done.wait();
        for (let i = 0; i < count; i++) system.tell(self, { type: 'count', until: told });
        return waiting;
      },
      ask: () => system.ask(self, 5000, (replyTo): Message => ({ type: 'ask', replyTo })),
      spawn(index) {
        living += 1;
        children.push(
          system.spawn(self, child, {
            name: `child-${index}`,
            initial: 0,
            interpret: () => {
              reached += 1;
              if (reached === children.length) done.open();
            },
          }),
        );
      },
      tellChildren() {
        reached = 0;
        round += 1;
        const waiting = done.wait();
        for (const address of children) system.tell(address, { type: 'count', until: round });
        return waiting;
      },
      stopChildren() {
        const waiting = gone.wait();
        for (const address of children.splice(0)) system.stop(address);
        return waiting;
      },
    };
  }

  return { name: 'ours', counter: parent, parent, close: () => system.close() };
}
