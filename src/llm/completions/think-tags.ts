/** Thoughts that a model writes into its answer, between tags at its beginning: told from the answer, however they are split. */
import type { Quirks } from '../../domain/ready-made-providers.ts';

export type ThinkTags = Quirks['thinkTags'];

/** One model's way to mark its thoughts. */
export interface TagPair {
  readonly open: string;
  readonly close: string;
}

const pair = (name: string): TagPair => ({ open: `<${name}>`, close: `</${name}>` });

/** DeepSeek's, Qwen's and most others' */
const THINK = pair('think');
/** Gemini's, Seed's, Magistral's and Kimi's beside it. */
const PAIRS: readonly TagPair[] = [
  THINK,
  pair('thinking'),
  pair('thought'),
  pair('seed:think'),
  { open: '[THINK]', close: '[/THINK]' },
  { open: '◁think▷', close: '◁/think▷' },
];
/** UTF-16 units of blanks that are held back before an answer. */
const MAX_BLANKS = 1_000;

export interface Told {
  readonly thought: string;
  readonly text: string;
}

const pattern = ({ close }: TagPair): RegExp =>
  new RegExp(
    close.replace(/[[\]/:]/g, (special) => `\\${special}`),
    'i',
  );

/**
 * Reads the beginning of one answer; once its text has begun, all is text, tags among it. Blanks around thoughts are
 * nobody's. A class: there is one for each answer that begins like a tag.
 */
export class ThinkTagScan {
  #state: 'start' | 'thought' | 'text' = 'start';
  /** The first tag is not waited for. */
  #isBegun: boolean;
  #pair: TagPair | undefined;
  #close = pattern(THINK);
  /** What may be part of a tag. */
  #held = '';
  #hasThought = false;

  constructor(isBegun: boolean) {
    this.#isBegun = isBegun;
  }

  /** The tags that were there. */
  get pair(): TagPair | undefined {
    return this.#pair;
  }

  /** The text has begun: what follows need not come here. */
  get isOver(): boolean {
    return this.#state === 'text';
  }

  push(piece: string): Told {
    this.#held += piece;
    let thought = '';
    for (;;) {
      if (this.#state === 'text') return { thought, text: this.#all() };
      const before = this.#state;
      thought += before === 'start' ? this.#start() : this.#thought();
      if (this.#state === before) return { thought, text: '' };
    }
  }

  /** What was held back, where nothing more comes. */
  end(): Told {
    const held = this.#all();
    if (this.#state === 'thought' || this.#isBegun) return { thought: held, text: '' };
    return { thought: '', text: this.#pair ? held.trimStart() : held };
  }

  #all(): string {
    const held = this.#held;
    this.#held = '';
    return held;
  }

  /** Where a tag may stand. */
  #start(): string {
    const text = this.#held.trimStart();
    const opened = PAIRS.find(({ open }) => text.slice(0, open.length).toLowerCase() === open.toLowerCase());
    if (opened) this.#open(opened, text.slice(opened.open.length));
    else if (this.#pair) this.#held = text;
    const isOpen = opened !== undefined;
    if (isOpen || this.#held.length > MAX_BLANKS || !mayBecomeTag(text)) {
      if (!isOpen && this.#isBegun) this.#open(THINK, this.#held);
      else if (!isOpen) this.#state = 'text';
    }
    return '';
  }

  #open(opened: TagPair, rest: string): void {
    this.#state = 'thought';
    this.#isBegun = false;
    this.#pair = opened;
    this.#close = pattern(opened);
    this.#held = rest;
    this.#hasThought = false;
  }

  #thought(): string {
    const end = this.#close.exec(this.#held);
    const { close } = this.#pair ?? THINK;
    const until = end ? end.index : this.#held.length - heldBack(this.#held, close);
    const thought = this.#hasThought ? this.#held.slice(0, until) : this.#held.slice(0, until).trimStart();
    this.#hasThought ||= thought !== '';
    this.#held = this.#held.slice(end ? until + close.length : until);
    if (end) this.#state = 'start';
    return thought;
  }
}

/** Text that a tag may begin with; '' is one. */
const mayBecomeTag = (text: string): boolean =>
  PAIRS.some(({ open }) => open.toLowerCase().startsWith(text.toLowerCase()));

/** Units at the end of a text that may be the beginning of the tag. */
function heldBack(text: string, tag: string): number {
  const lower = tag.toLowerCase();
  for (let length = Math.min(tag.length - 1, text.length); length > 0; length -= 1)
    if (lower.startsWith(text.slice(-length).toLowerCase())) return length;
  return 0;
}

/** The content of an answer as the model wrote it: some read their thoughts back where they wrote them. */
export const withTags = ({ open, close }: TagPair, thought: string, text: string): string =>
  `${open}\n${thought.trim()}\n${close}\n\n${text}`;
