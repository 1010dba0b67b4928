#!/bin/sh
# Write requirements.lock (what KECS and its development need) and scripts/uv.lock (uv itself) anew,
# with hashes and without the name of any index.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
header='make lock'
"$uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
  --custom-compile-command "$header" --group dev pyproject.toml --upgrade -o requirements.lock
printf 'uv\n' | "$uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url \
  --python-version 3.11 --custom-compile-command "$header" --upgrade -o scripts/uv.lock -
