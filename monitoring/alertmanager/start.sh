#!/bin/sh
# start.sh [OPTION…]: start Alertmanager with those integrations of alertmanager.yml whose secrets are
# there. A *_configs that names a file which is missing or empty is left out, with a word about it.
# SIGHUP does the same again and has Alertmanager read it: a file or a secret that is new counts then.
# What Alertmanager refuses it goes on without. A secret that changes counts at once.
set -eu
folder=${TMPDIR:-/tmp}
source=$(dirname "$0")/alertmanager.yml
process=

write() {
  awk '
    function finish() {
      if (missing == "") { printf "%s", block }
      else { print "start.sh: receiver " receiver ", left out for want of a secret: " kind " " missing > "/dev/stderr" }
      block = missing = ""
    }
    /^  - name: / { finish(); receiver = $NF }
    /^    [a-z]+_configs:$/ { finish(); kind = $1; block = $0 "\n"; next }
    block != "" && /^      / {
      block = block $0 "\n"
      if ($0 ~ /_file: /) {
        path = $NF
        if ((getline line < path) <= 0 || line == "") { missing = path }
        close(path)
      }
      next
    }
    { finish(); print }
    END { finish() }
  ' "$source" > "$folder/alertmanager.yml"
}

# It may come before there is a process, which reads what is there then. A file that cannot be written does
# not end what runs: Alertmanager is asked all the same, and tells that it refuses what it finds.
reload() {
  write || true
  [ -z "$process" ] || kill -HUP "$process"
}

trap reload HUP
trap '[ -z "$process" ] || kill -TERM "$process"' TERM INT
write

echo "start.sh: all alerts are seen on the page of Alertmanager, port 9093" >&2
alertmanager --config.file="$folder/alertmanager.yml" "$@" &
process=$!
while :; do
  status=0
  wait "$process" || status=$?
  # A signal ends `wait`, and the process goes on.
  kill -0 "$process" 2>/dev/null || exit "$status"
done
