/** Which files' code runs while something is done, by V8's precise coverage of this process. */
import { Session } from 'node:inspector/promises';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** Files of the product, from the project's root, of which at least one function ran while `work` did. */
export async function filesThatRun(work: () => Promise<void>): Promise<readonly string[]> {
  const session = new Session();
  session.connect();
  try {
    await session.post('Profiler.enable');
    await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
    await session.post('Profiler.takePreciseCoverage');
    await work();
    const { result } = await session.post('Profiler.takePreciseCoverage');
    const ran = result.flatMap(({ url, functions }) =>
      url.startsWith('file:') &&
      functions.some(({ ranges: [range] }) => range && range.startOffset > 0 && range.count > 0)
        ? [fileURLToPath(url.replace(/\?.*$/, ''))]
        : [],
    );
    const own = ran.flatMap((path) => (path.startsWith(ROOT) ? [path.slice(ROOT.length)] : []));
    return [...new Set(own)].filter((path) => /^(src|actors|transports)\//.test(path)).sort();
  } finally {
    session.disconnect();
  }
}
