#!/bin/sh
# The command line as one command, which prints nothing but its own: `npx nooble`, or this file by its path or a link.
project="$(dirname "$(readlink -f "$0")")/../.."
PATH="$project/node_modules/.bin:$PATH"
exec node --disable-warning=ExperimentalWarning "$project/src/main.ts" "$@"
