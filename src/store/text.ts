/** How texts are stored so that they come back as they came, whatever characters they hold. */
import type { Outgoing } from '../ports/store.ts';

declare global {
  /** In Node since 20; TypeScript's es2023 library does not list them yet. */
  interface String {
    isWellFormed(): boolean;
    toWellFormed(): string;
  }
}

/**
 * Neither database keeps every JavaScript string: UTF-8 has no lone surrogates, PostgreSQL's text no NUL.
 * Where a text holds one of them it is stored as a JSON string (which escapes both) and a flag says so.
 */
export const needsEscape = (text: string): boolean => !text.isWellFormed() || text.includes('\u0000');

export const escaped = (text: string): string => JSON.stringify(text);

/** Undoes `escaped` where `isEscaped`. Throws where what is stored is no JSON string. */
export function unescaped(text: string, isEscaped: boolean): string {
  if (!isEscaped) return text;
  const value: unknown = JSON.parse(text);
  if (typeof value !== 'string') throw new Error('An escaped text is not a JSON string.');
  return value;
}

/** Throws a TypeError where an id of the message holds characters that not every database can store. */
export function checkOutgoing({ id, answers = '' }: Outgoing): void {
  if (needsEscape(id) || needsEscape(answers))
    throw new TypeError('An outgoing message has an id that can not be stored.');
}

/** A text as searches compare it: in lower case, without what a database refuses. It is never shown. */
export const searchable = (text: string): string =>
  text.toLowerCase().normalize('NFC').toWellFormed().replaceAll('\u0000', '\ufffd');
