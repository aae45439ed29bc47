#!/usr/bin/env bash
# make-secrets.sh NAMESPACE ENVIRONMENT: make what is missing of the Secrets that an environment needs,
# with random passwords. What is there stays as it is. In prod app-secret names your managed services,
# so that nobody can make it but you.
set -euo pipefail
namespace=${1:?"usage: make-secrets.sh NAMESPACE ENVIRONMENT"} env=${2:?"usage: make-secrets.sh NAMESPACE ENVIRONMENT"}

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
has() { kubectl -n "$namespace" get secret "$1" >/dev/null 2>&1; }
get() { kubectl -n "$namespace" get secret "$1" -o "jsonpath={.data.$2}" | base64 -d; }

make() { # NAME KEY=VALUE…: values travel by a pipe, never in the arguments of a process
  local name=$1
  shift
  ! has "$name" || { echo "secret/$name is there"; return; }
  printf '%s\n' "$@" | kubectl -n "$namespace" create secret generic "$name" --from-env-file=/dev/stdin
}

if [ "$env" = prod ]; then
  has app-secret || {
    echo "make-secrets: $namespace has no app-secret: DATABASE_URL, REDIS_URL, AUTH_TOKEN (docs/how-to/production.md)" >&2
    exit 1
  }
else
  make postgres-secret POSTGRES_USER=devops "POSTGRES_PASSWORD=$(random)" POSTGRES_DB=credenza
  make redis-secret "REDIS_PASSWORD=$(random)"
  user=$(get postgres-secret POSTGRES_USER) password=$(get postgres-secret POSTGRES_PASSWORD)
  database=$(get postgres-secret POSTGRES_DB) redis=$(get redis-secret REDIS_PASSWORD)
  case $user$password$database$redis in
    *[!A-Za-z0-9_-]*) echo "make-secrets: a name or password has characters that a URL must not have" >&2; exit 1 ;;
  esac
  make app-secret "DATABASE_URL=postgresql://$user:$password@postgres:5432/$database" \
    "REDIS_URL=redis://:$redis@redis:6379/0" "AUTH_TOKEN=$(random)"
  token=$(get app-secret AUTH_TOKEN)
  make credenza-passwords "DATABASE_PASSWORD=$password" "REDIS_PASSWORD=$redis" "AUTH_TOKEN=$token"
fi
make grafana-secret "GF_SECURITY_ADMIN_PASSWORD=$(random)"
