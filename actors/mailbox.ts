/** The messages that wait for one actor, oldest first; taking one never moves the others. */

export interface Mailbox {
  items: unknown[];
  /** Where the oldest stands; what is before it has been taken. */
  head: number;
}

export const emptyMailbox = (): Mailbox => ({ items: [], head: 0 });

export const waitingIn = (mail: Mailbox): number => mail.items.length - mail.head;

export const firstIn = (mail: Mailbox): unknown => mail.items[mail.head];

/** Taken places are given back once there are this many of them. */
const COMPACT_AT = 1024;

/** Drops the oldest message. */
export function shiftMail(mail: Mailbox): void {
  mail.items[mail.head] = undefined;
  mail.head += 1;
  if (mail.head === mail.items.length) {
    mail.items.length = 0;
    mail.head = 0;
  } else if (mail.head >= COMPACT_AT) {
    mail.items = mail.items.slice(mail.head);
    mail.head = 0;
  }
}

/** Empties the mailbox and returns what was in it. */
export function takeAll(mail: Mailbox): readonly unknown[] {
  const left = mail.items.slice(mail.head);
  mail.items = [];
  mail.head = 0;
  return left;
}
