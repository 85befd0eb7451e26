/** Which media types a request names, by the grammar of their headers (RFC 9110, 8.3 and 12.5.1). */

/** A media type with its parameters, names in lower case, quotes taken off. */
interface MediaType {
  readonly type: string;
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const TYPE = new RegExp(`^(${TOKEN})/(${TOKEN})$`);
const PARAMETER = new RegExp(`^(${TOKEN})=(?:(${TOKEN})|"((?:[^"\\\\]|\\\\.)*)")$`);

/** Splits at a separator that stands in no quotes, and takes the spaces around the parts away. */
const parts = (text: string, separator: ',' | ';'): readonly string[] =>
  (text.match(new RegExp(`(?:[^"${separator}]|"(?:[^"\\\\]|\\\\.)*"?)+`, 'g')) ?? []).map((part) =>
    part.trim(),
  );

function mediaType(text: string): MediaType | undefined {
  const [type = '', ...rest] = parts(text, ';');
  if (!TYPE.test(type)) return undefined;
  const parameters = new Map<string, string>();
  for (const parameter of rest.filter((each) => each !== '')) {
    const [, name, token, quoted] = PARAMETER.exec(parameter) ?? [];
    if (name === undefined) return undefined;
    parameters.set(name.toLowerCase(), token ?? quoted?.replace(/\\(.)/g, '$1') ?? '');
  }
  return { type: type.toLowerCase(), parameters };
}

/** Whether a Content-Type is that of JSON in UTF-8, the only form in which JSON travels. */
export function isJson(contentType: string | undefined): boolean {
  const named = mediaType(contentType ?? '');
  if (named?.type !== 'application/json') return false;
  const charset = named.parameters.get('charset') ?? 'utf-8';
  return /^(utf-?8|us-ascii)$/i.test(charset);
}

/**
 * Whether an Accept asks for an event stream: by its name, and with no lower weight than JSON where that is named, too.
 * Whoever takes anything is not asked to read a stream.
 */
export function wantsEventStream(accept: string | undefined): boolean {
  const ranges = parts(accept ?? '', ',').flatMap((range) => mediaType(range) ?? []);
  const weightOf = (type: string): number =>
    Math.max(0, ...ranges.filter((range) => range.type === type).map(({ parameters }) => weight(parameters)));
  const stream = weightOf('text/event-stream');
  return stream > 0 && stream >= weightOf('application/json');
}

const weight = (parameters: ReadonlyMap<string, string>): number => {
  const q = parameters.get('q');
  if (q === undefined) return 1;
  return /^(0(\.\d{0,3})?|1(\.0{0,3})?)$/.test(q) ? Number(q) : 0;
};
