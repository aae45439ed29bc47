#!/usr/bin/env bash
# rotate-passwords.sh NAMESPACE: give PostgreSQL and Redis in the cluster new passwords while the
# service runs, without a restart and without a lost request. It needs secret-files. The order is told in
# docs/how-to/rotate-passwords.md. Passwords travel by pipes, never in the arguments of a process.
set -euo pipefail
namespace=${1:?"usage: rotate-passwords.sh NAMESPACE"}

k() { kubectl -n "$namespace" "$@"; }
say() { echo "rotate: $*" >&2; }
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
get() { k get secret "$1" -o "jsonpath={.data.$2}" | base64 -d; }
put() { printf '{"stringData": {"%s": "%s"}}' "$2" "$3" | k patch secret "$1" --patch-file /dev/stdin >/dev/null; }
sql() { k exec -i postgres-0 -- psql -h /var/run/postgresql -qAtU "$user" -v ON_ERROR_STOP=1 "$(get postgres-secret POSTGRES_DB)"; }
redis() { k exec -i deployment/redis -c redis -- sh -c "read -r REDISCLI_AUTH; export REDISCLI_AUTH; redis-cli -e $*"; }

has_files() { # PART FILE DIGEST: whether each pod of a part that runs reads the new password
  local pod pods
  pods=$(k get pods -l "app.kubernetes.io/name=$1" -o name) && [ -n "$pods" ] || return 1
  for pod in $pods; do
    [ "$(k exec "$pod" -c "$1" -- sha256sum "$2" | cut -d ' ' -f 1)" = "$3" ] || return 1
  done
}

wait_for_files() { # PART FILE PASSWORD: the kubelet takes up to a minute; a pod that changes, it looks at once
  local digest _
  digest=$(printf %s "$3" | sha256sum | cut -d ' ' -f 1)
  k annotate pods -l "app.kubernetes.io/name=$1" --overwrite "credenza/rotated=$(date +%s%N)" >/dev/null
  for _ in {1..180}; do ! has_files "$1" "$2" "$digest" || return 0; sleep 1; done
  say "the pods of $1 do not get the new password; nothing was taken away, run it again"
  exit 1
}

user=$(get postgres-secret POSTGRES_USER)
redis_old=$(get redis-secret REDIS_PASSWORD) redis_new=$(random) postgres_new=$(random)

# Redis takes both until all use the new one. (ACL reads what follows the first line of its input.)
printf '%s\n>%s' "$redis_old" "$redis_new" | redis -x ACL SETUSER default >/dev/null
put redis-secret REDIS_PASSWORD "$redis_new"
put credenza-passwords REDIS_PASSWORD "$redis_new"
wait_for_files credenza /etc/credenza/passwords/REDIS_PASSWORD "$redis_new"
wait_for_files redis /etc/redis/passwords/REDIS_PASSWORD "$redis_new"
printf '%s\n>%s' "$redis_new" "$redis_new" | redis -x ACL SETUSER default resetpass >/dev/null
printf '%s\n' "$redis_new" | redis CLIENT KILL TYPE normal SKIPME yes >/dev/null
printf '%s\n' "$redis_new" | redis CLIENT KILL TYPE pubsub >/dev/null
say "Redis has a new password, and only that"

# PostgreSQL takes one: until it has the new one, the service goes on with the last that it was let in with.
put credenza-passwords DATABASE_PASSWORD "$postgres_new"
wait_for_files credenza /etc/credenza/passwords/DATABASE_PASSWORD "$postgres_new"
printf "ALTER ROLE %s PASSWORD '%s'" "$user" "$postgres_new" | sql
put postgres-secret POSTGRES_PASSWORD "$postgres_new"
say "PostgreSQL has a new password; the service logs in anew by itself"
