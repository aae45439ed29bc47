#!/bin/sh
# Bring the database of DATABASE_URL to BACKUP, a file's name in /backups; empty: the newest one.
# Everything or nothing: it is one transaction. The role must own the schema `public`.
set -eu
cd /backups
name=${BACKUP:-$(find . -name 'credenza-*.dump' | sort | tail -n 1)}
[ -n "$name" ] && [ -s "$name" ] || { echo "there is no backup ${BACKUP:-at all} in /backups" >&2; exit 1; }
echo "restoring $name"
sha256sum -c "$name.sha256"
# The schema goes first: it may have what the backup does not know. Without COMMIT nothing has changed.
{
  echo 'BEGIN; DROP SCHEMA public CASCADE; CREATE SCHEMA public;'
  pg_restore --no-owner --file=- "$name" && echo "COMMIT; SELECT 'restored';"
} | psql --dbname="$DATABASE_URL" --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 | grep -x restored
