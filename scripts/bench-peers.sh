#!/usr/bin/env bash
# Install the peers of the benchmark into .tools/bench, each in the version of bench/peers.env. One that
# is there stays; one that cannot be had is named, and the others are installed all the same.
# Needs go (PocketBase), uv and a C compiler (Kinto's uWSGI), npm (json-server).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=/dev/null
source bench/peers.env
folder=$PWD/.tools/bench
uv=$(command -v uv || echo "$PWD/.tools/bin/uv")

# install NAME VERSION COMMAND…: what is whole has a file .ready.
failed=0
install() {
  local place=$folder/$1-$2
  if [ -e "$place/.ready" ]; then
    echo "$1 $2 is there"
  elif mkdir -p "$place" && "${@:3}"; then
    touch "$place/.ready"
    echo "$1 $2 was installed"
  else
    echo "$1 $2 cannot be installed here" >&2
    failed=1
  fi
}

install pocketbase "$POCKETBASE" env "GOBIN=$folder/pocketbase-$POCKETBASE" \
  go install "github.com/pocketbase/pocketbase/examples/base@$POCKETBASE"

# uWSGI is what Kinto's documentation names for production.
# shellcheck disable=SC2329 # install calls it
kinto() {
  local place=$folder/kinto-$KINTO
  "$uv" venv --quiet --allow-existing --python "${PYTHON:-python3}" "$place" &&
    "$uv" pip install --quiet --python "$place/bin/python" "kinto[postgresql]==$KINTO" uwsgi
}
install kinto "$KINTO" kinto

install json-server "$JSON_SERVER" npm install --prefix "$folder/json-server-$JSON_SERVER" \
  --silent --no-audit --no-fund "json-server@$JSON_SERVER"
exit "$failed"
