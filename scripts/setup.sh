#!/bin/sh
# Put the locked environment into .venv: uv into it when it is missing, then exactly what
# requirements.lock names, by hash. Called by make; run again, it does what is missing.
set -eu
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
say() { printf '%s\n' "$*" >&2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  say "error: \`$python\` is missing or older than Python 3.11"
  say "hint: install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3 …"
  exit 1
}
if [ ! -x .venv/bin/python ]; then
  say "setting up .venv …"
  "$python" -m venv .venv || {
    rm -rf .venv
    say "error: \`$python -m venv\` failed"
    say "hint: on Debian and Ubuntu: apt-get install python3-venv"
    exit 1
  }
fi
if [ ! -x .venv/bin/uv ]; then
  .venv/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes \
    --only-binary :all: -r scripts/uv.lock
fi
.venv/bin/uv pip sync --quiet --compile-bytecode --require-hashes --python .venv/bin/python requirements.lock
.venv/bin/uv pip install --quiet --no-deps --no-build-isolation --python .venv/bin/python --editable .
.venv/bin/python -m compileall -q src
touch .venv/.ready
