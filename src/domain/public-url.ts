/** Which addresses from outside may be used: those of webhooks, of callbacks, and of images that a model is to fetch. */

export interface UrlRules {
  /** Also http: with ALLOW_INSECURE=1. */
  readonly allowInsecure: boolean;
  readonly blockPrivate: boolean;
}

const LOCAL_NAME = /^localhost\.?$|\.(localhost|local|internal|home\.arpa)\.?$/;
/** As the URL parser writes them. */
const IP_ADDRESS = /^\[|^\d+\.\d+\.\d+\.\d+$/;

/**
 * Why a URL will not do, or null. The URL parser writes every odd form of an IPv4 address (0x7f.1, 2130706433, 127.1) as
 * four decimals first, so that no form gets past.
 */
export function urlProblem(text: string, rules: UrlRules): string | null {
  if (!URL.canParse(text)) return 'must be an absolute URL';
  const url = new URL(text);
  if (url.protocol !== 'https:' && !(rules.allowInsecure && url.protocol === 'http:'))
    return rules.allowInsecure ? 'must start with https:// or http://' : 'must start with https://';
  if (url.username !== '' || url.password !== '')
    return 'must not carry a user name or password; check the signature instead';
  if (!rules.blockPrivate) return null;
  if (IP_ADDRESS.test(url.hostname)) return 'must name a host, not an IP address';
  if (LOCAL_NAME.test(url.hostname)) return 'must name a public host';
  return null;
}
