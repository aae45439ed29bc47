#!/usr/bin/env bash
# restore.sh NAMESPACE [FILE]: bring the database back to a backup of k8s/components/backup; without
# FILE to the newest one. The service is stopped meanwhile, and its cache is emptied: what is cached
# is not what the database then has. Where Redis is not in the namespace, EMPTY_CACHE is the command that
# empties it, such as EMPTY_CACHE='redis-cli -u rediss://redis.example.com:6379 flushdb'.
set -euo pipefail
namespace=${1:?"usage: restore.sh NAMESPACE [FILE]"} file=${2:-}
job=restore-$(date +%s)

say() { echo "restore: $*" >&2; }
fail() { say "$*"; exit 1; }
kube() { kubectl -n "$namespace" "$@"; }
job() { kube create job "$job" --from=cronjob/restore --dry-run=client -o yaml; }
# Complete, Failed, or nothing while it runs, or while the cluster does not answer.
ended() { kube get "job/$job" -o jsonpath='{.status.conditions[?(@.status=="True")].type}' 2>/dev/null | grep -oE 'Complete|Failed' | head -n 1; }

kube get cronjob/restore >/dev/null || fail "$namespace has no backups: k8s/components/backup is not in its overlay"
has_redis=$(kube get deployment/redis --ignore-not-found -o name)
[ -n "$has_redis" ] || [ -n "${EMPTY_CACHE:-}" ] ||
  fail "Redis is elsewhere: say how it is emptied, such as EMPTY_CACHE='redis-cli -u rediss://redis.example.com:6379 flushdb'"
replicas=$(kube get deployment/credenza -o jsonpath='{.spec.replicas}')

resume() {
  # Not while a restore is at work: what is written meanwhile would be lost with it.
  kube delete "job/$job" --ignore-not-found --cascade=foreground --wait >/dev/null || { say "is the job $job at work? The service stays stopped"; return; }
  [ "$replicas" != 0 ] || { say "the service was stopped before, and stays so"; return; }
  say "starting the service again, with $replicas replicas"
  kube scale deployment/credenza --replicas="$replicas" >/dev/null
  kube rollout status deployment/credenza --timeout=300s >&2
}

say "stopping the service"
trap resume EXIT
kube scale deployment/credenza --replicas=0 >/dev/null
kube wait pod --for=delete -l app.kubernetes.io/name=credenza,app.kubernetes.io/part-of=credenza --timeout=120s >/dev/null
say "emptying the cache"
if [ -n "${EMPTY_CACHE:-}" ]; then
  bash -c "$EMPTY_CACHE" >&2
else
  kube rollout restart deployment/redis >/dev/null
  kube rollout status deployment/redis --timeout=120s >&2
fi
say "restoring; kubectl -n $namespace logs -f job/$job shows it at work"
if [ -z "$file" ]; then job; else job | kube set env --local -f - -o yaml "BACKUP=$file"; fi | kube create -f - >/dev/null
# The job itself has a time limit. Where the cluster does not answer, it is asked again.
until result=$(ended) && [ -n "$result" ]; do
  ! left=$(kube get "job/$job" --ignore-not-found -o name) || [ -n "$left" ] || fail "somebody has deleted the job $job"
  sleep 1
done
kube logs "job/$job" >&2 || true
[ "$result" = Complete ] || fail "it has failed, and the database is as it was"
say "restored"
