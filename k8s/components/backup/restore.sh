#!/bin/sh
# Bring the database of DATABASE_URL to BACKUP, a file's name in /backups; empty: the newest one.
# Everything or nothing: it is one transaction.
set -eu
cd /backups
name=${BACKUP:-$(find . -name 'credenza-*.dump' | sort | tail -n 1)}
[ -n "$name" ] && [ -s "$name" ] || { echo "there is no backup ${BACKUP:-at all} in /backups" >&2; exit 1; }
echo "restoring $name"
sha256sum -c "$name.sha256"
pg_restore --dbname="$DATABASE_URL" --clean --if-exists --no-owner --single-transaction --exit-on-error "$name"
echo "done"
