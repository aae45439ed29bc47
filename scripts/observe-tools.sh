#!/usr/bin/env bash
# Build Prometheus, Alertmanager, an OpenTelemetry collector, Jaeger and Loki for `make observe`, each
# from its Go module in the version of observe/tools.env, into ~/.cache/credenza-observe. What is there
# stays; after an interruption it goes on where it was. Needs Go of 1.26 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=/dev/null
source observe/tools.env
cache=${XDG_CACHE_HOME:-$HOME/.cache}/credenza-observe
manifest=$PWD/observe/collector.yaml
export CGO_ENABLED=0 GOWORK=off GOFLAGS="${GOFLAGS:-} -p=2 -mod=mod"

command -v go > /dev/null || {
  echo "observe-tools.sh: there is no go (of 1.26 or newer) to build with: https://go.dev/dl/" >&2
  exit 1
}
renice -n 19 $$ > /dev/null # what it takes is what others leave
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

# tool NAME VERSION COMMAND…: have COMMAND FILE make it; only what is whole gets its name.
tool() {
  local name=$1 file=$cache/$1-$2/$1 began=$SECONDS
  if [ -x "$file" ]; then
    echo "$name $2 is there"
    return
  fi
  echo "$name $2 is being built"
  mkdir -p "${file%/*}"
  ("${@:3}" "$file.part")
  mv "$file.part" "$file"
  echo "$name $2 was built in $((SECONDS - began)) s"
}

# module MODULE VERSION PACKAGE FILE: build a program of a module as its authors do, with the versions
# and replacements of its go.mod (`go install` refuses those); parts beside it, which a module does not
# bring along, come as modules of their own.
module() {
  local folder mod=$temporary/${1//\//-}.mod each
  folder=$(go mod download -json "$1@$2" | sed -nE 's/^\s*"Dir": "(.*)",$/\1/p')
  cp "$folder/go.mod" "$mod"
  cp "$folder/go.sum" "${mod%.mod}.sum"
  chmod u+w "${mod%.mod}".*
  sed -nE 's/^(replace)?\s*(\S+)( \S+)? => \.\.?\/.*/\2/p' "$folder/go.mod" | while read -r each; do
    go mod edit -dropreplace="$each" "$mod"
  done
  cd "$folder"
  go build -modfile="$mod" -trimpath -ldflags '-s -w' -o "$4" "$3"
}

# collector FILE: build one of the parts that the manifest names.
collector() {
  local folder=$temporary/collector
  sed "s/VERSION$/$COLLECTOR/" "$manifest" > "$temporary/collector.yaml"
  printf '  output_path: %s\n' "$folder" | sed -i '/^dist:/r /dev/stdin' "$temporary/collector.yaml"
  module go.opentelemetry.io/collector/cmd/builder "$COLLECTOR" . "$temporary/builder"
  "$temporary/builder" --config="$temporary/collector.yaml" --skip-compilation
  cd "$folder"
  go build -trimpath -ldflags '-s -w' -o "$1" .
}

tool prometheus "$PROMETHEUS" module github.com/prometheus/prometheus "$PROMETHEUS" ./cmd/prometheus
tool promtool "$PROMETHEUS" module github.com/prometheus/prometheus "$PROMETHEUS" ./cmd/promtool
tool alertmanager "$ALERTMANAGER" module github.com/prometheus/alertmanager "$ALERTMANAGER" \
  ./cmd/alertmanager
tool amtool "$ALERTMANAGER" module github.com/prometheus/alertmanager "$ALERTMANAGER" ./cmd/amtool
built=$cache/collector-$COLLECTOR
cmp -s "$manifest" "$built/manifest.yaml" || rm -f "$built/collector"
tool collector "$COLLECTOR" collector
cp "$manifest" "$built/manifest.yaml"
tool jaeger "$JAEGER" module github.com/jaegertracing/jaeger "$JAEGER" ./cmd/jaeger
tool loki "$LOKI" module github.com/grafana/loki/v3 "$LOKI" ./cmd/loki
