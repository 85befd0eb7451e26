/** Slugs out of names: what a tenant may type into an address. */
const MAX_UNITS = 50;
/** What a name without a single letter or digit of a-z 0-9 becomes. */
const NAMELESS = 'agent';

/** Letters that Unicode does not take apart into a letter of a-z and a mark. */
const SPELLED: Readonly<Record<string, string>> = {
  ß: 'ss',
  æ: 'ae',
  œ: 'oe',
  ø: 'o',
  đ: 'd',
  ð: 'd',
  ł: 'l',
  þ: 'th',
  ı: 'i',
};

/** A slug for a name: 2 to 50 characters out of a-z 0-9 -, never starting or ending with a dash. */
export function slugOf(name: string): string {
  const plain = name
    .toLowerCase()
    .normalize('NFKD')
    .replace(/\p{M}+/gu, '')
    .replace(/[ßæœøđðłþı]/g, (letter) => SPELLED[letter] ?? '')
    .replace(/[^a-z0-9]+/g, '-');
  const slug = trimmed(trimmed(plain).slice(0, MAX_UNITS));
  if (slug.length >= 2) return slug;
  return slug === '' ? NAMELESS : `${NAMELESS}-${slug}`;
}

/** The same slug with `-suffix` behind it, cut so that it stays a slug. */
export const suffixed = (slug: string, suffix: string): string =>
  `${trimmed(slug.slice(0, MAX_UNITS - 1 - suffix.length))}-${suffix}`;

const trimmed = (slug: string): string => slug.replace(/^-+|-+$/g, '');
