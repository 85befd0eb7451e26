/** Which browser pages may talk to this node: an Origin header is checked against a list, or against the node's own host. */

/**
 * Makes the check for `ALLOWED_ORIGINS`: `*` lets everyone in, an empty list only pages of the same host. Requests
 * without an Origin do not come from a browser page and pass. Takes the raw `Origin` and `Host` headers.
 */
export function createOriginCheck(allowed: readonly string[]): (origin: string, host: string) => boolean {
  const everyone = allowed.includes('*');
  const listed = new Set(allowed.map((entry) => entry.toLowerCase().replace(/\/+$/, '')));
  return (origin, host) => {
    if (everyone || origin === '') return true;
    return listed.size > 0 ? listed.has(origin.toLowerCase()) : hostOf(origin) === host.toLowerCase();
  };
}

/** `https://app.example:8443` gives `app.example:8443`; undefined for what is no origin (`null`, a path, a broken URL). */
function hostOf(origin: string): string | undefined {
  return /^https?:\/\/([^/?#@\s]+)$/.exec(origin.toLowerCase())?.[1];
}
