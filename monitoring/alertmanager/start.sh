#!/bin/sh
# start.sh [OPTION…]: start Alertmanager with those integrations of alertmanager.yml whose secrets are
# there. A *_configs that names a file which is missing or empty is left out, with a word about it. A
# secret that comes later counts from the next start on; one that changes, at once.
set -eu
folder=${TMPDIR:-/tmp}

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
' "$(dirname "$0")/alertmanager.yml" > "$folder/alertmanager.yml"

echo "start.sh: all alerts are seen on the page of Alertmanager, port 9093" >&2
exec alertmanager --config.file="$folder/alertmanager.yml" "$@"
