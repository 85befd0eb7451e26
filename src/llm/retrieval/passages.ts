/** Cuts a text into passages that a model can read and an index can find: on paragraphs, under their headings. Pure. */
import { cut } from '../../domain/cut.ts';

/** UTF-16 units that a passage should have, and may have at most. */
const GOAL_UNITS = 1_000;
const MAX_UNITS = 1_500;
const MAX_HEADING_UNITS = 120;

interface Piece {
  /** The nearest heading above, without its marks; empty where there is none. */
  readonly heading: string;
  readonly text: string;
}

/** The passages of a Markdown or plain text, in its order. */
export function piecesOf(text: string): readonly Piece[] {
  const pieces: Piece[] = [];
  let heading = '';
  let gathered = '';
  const flush = (): void => {
    if (gathered !== '') pieces.push({ heading, text: gathered });
    gathered = '';
  };
  for (const paragraph of paragraphsOf(text)) {
    const title = /^#{1,6}\s+(.{1,1000})/.exec(paragraph)?.[1];
    if (title !== undefined) {
      flush();
      heading = title.replace(/[\s#]+$/, '').slice(0, MAX_HEADING_UNITS);
    }
    for (const part of partsOf(paragraph)) {
      if (gathered !== '' && gathered.length + part.length > GOAL_UNITS) flush();
      gathered = gathered === '' ? part : `${gathered}\n\n${part}`;
    }
  }
  flush();
  return pieces.filter((piece) => !isHeadingAlone(piece));
}

/** What stands between empty lines; a heading begins a paragraph wherever it stands. */
const paragraphsOf = (text: string): readonly string[] =>
  text
    .replace(/\r\n?/g, '\n')
    .split(/\n[ \t]*\n|\n(?=#{1,6}[ \t])/)
    .map((paragraph) => paragraph.trim())
    .filter((paragraph) => paragraph !== '');

/** A paragraph, cut where it is too long: behind a sentence, else between words, else anywhere. */
function partsOf(paragraph: string): readonly string[] {
  const parts: string[] = [];
  let rest = paragraph;
  while (rest.length > MAX_UNITS) {
    const room = rest.slice(0, GOAL_UNITS);
    const sentence = Math.max(...['. ', '.\n', '? ', '! ', '\n'].map((end) => room.lastIndexOf(end))) + 1;
    const word = room.lastIndexOf(' ') + 1;
    const at = [sentence, word].find((place) => place > GOAL_UNITS / 3) ?? cut(rest, GOAL_UNITS).length;
    parts.push(rest.slice(0, at).trim());
    rest = rest.slice(at).trim();
  }
  return rest === '' ? parts : [...parts, rest];
}

/** A title page, a chapter that holds only others: nothing to read. */
const isHeadingAlone = ({ text }: Piece): boolean => /^#{1,6}\s[^\n]*$/.test(text);
