#!/usr/bin/env bash
# What the manifests use of the real image's entry point: POSTGRES_USER, POSTGRES_PASSWORD,
# POSTGRES_DB, POSTGRES_INITDB_ARGS, PGDATA.
set -euo pipefail
[ "${1:-postgres}" = postgres ] || exec "$@"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  : "${POSTGRES_PASSWORD:?must be set}"
  user=${POSTGRES_USER:-postgres}
  mkdir -p "$PGDATA" && chmod 700 "$PGDATA"
  # shellcheck disable=SC2086 # several arguments, as in the real image
  initdb --username="$user" --pwfile=<(printf %s "$POSTGRES_PASSWORD") --auth-local=trust \
    --auth-host=scram-sha-256 ${POSTGRES_INITDB_ARGS:-}
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl -w -o "-c listen_addresses='' -k /var/run/postgresql" start
  [ "${POSTGRES_DB:-$user}" = postgres ] ||
    createdb -h /var/run/postgresql -U "$user" "${POSTGRES_DB:-$user}"
  pg_ctl -m fast -w stop
fi
exec "$@" -c listen_addresses='*' -k /var/run/postgresql
