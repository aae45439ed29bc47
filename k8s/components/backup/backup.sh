#!/bin/sh
# Dump the database of DATABASE_URL into /backups, read the dump back, drop dumps over KEEP_DAYS old.
set -eu
name="/backups/credenza-$(date -u +%Y%m%dT%H%M%SZ).dump"
trap 'rm -f "$name.part"' EXIT
echo "backing up to $name"
pg_dump --dbname="$DATABASE_URL" --format=custom --compress=6 --file="$name.part"
pg_restore --list "$name.part" >/dev/null # a dump that cannot be read is none
sync "$name.part"
sum=$(sha256sum "$name.part")
echo "${sum%% *}  ${name##*/}" >"$name.sha256"
mv "$name.part" "$name"
find /backups -name 'credenza-*.dump*' -mtime +"${KEEP_DAYS:-14}" -delete
echo "${name##*/}" >/dev/termination-log # so that the name stays with the pod, whatever becomes of its log
echo "done: $(wc -c <"$name") bytes"
