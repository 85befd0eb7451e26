/** Prints the results of the last runs as Markdown, for `bench/README.md`: `node bench/report.ts`. */
import { existsSync, readFileSync } from 'node:fs';
import { RESULTS } from './kit/bench-main.ts';
import { BENCHES } from './kit/benches.ts';
import { resultMarkdown } from './kit/print.ts';
import { resultSchema } from './kit/result.ts';

for (const name of BENCHES) {
  const file = `${RESULTS}${name}.json`;
  if (existsSync(file))
    console.log(resultMarkdown(resultSchema.parse(JSON.parse(readFileSync(file, 'utf8')))));
  else console.error(`${name} has no result yet: npm run bench -- ${name}`);
}
