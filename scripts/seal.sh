#!/usr/bin/env bash
# seal.sh ENVIRONMENT [kubeseal's options]: encrypt the Secrets on standard input, as YAML, for that
# environment and the cluster's key, into k8s/overlays/ENVIRONMENT/sealed-secrets.yaml. Without a
# cluster at hand give its certificate: --cert FILE. With --renew it encrypts what is there by the
# cluster's newest key; nothing is shown on the way (docs/how-to/secrets-sealed.md).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
env=${1:?"usage: seal.sh ENVIRONMENT [--renew] [kubeseal's options]"}
shift
folder=$root/k8s/overlays/$env
[ -d "$folder" ] || { echo "seal: there is no environment $env" >&2; exit 1; }
command -v kubeseal >/dev/null || {
  echo "seal: kubeseal is missing: https://github.com/bitnami-labs/sealed-secrets/releases" >&2
  exit 1
}
target=$folder/sealed-secrets.yaml
new=$(mktemp "$folder/.sealed-XXXXXX")
trap 'rm -f "$new"' EXIT
chmod 644 "$new"

if [ "${1:-}" = --renew ]; then
  shift
  kubeseal --format yaml --re-encrypt "$@" <"$target" >"$new"
else
  kubeseal --format yaml --namespace "credenza-$env" "$@" >"$new"
fi
grep -q '^kind: SealedSecret$' "$new" || { echo "seal: there was no Secret on standard input" >&2; exit 1; }
mv "$new" "$target"
grep -q 'sealed-secrets\.yaml' "$folder/kustomization.yaml" ||
  echo "seal: add \"- sealed-secrets.yaml\" to resources in ${folder#"$root/"}/kustomization.yaml" >&2
echo "sealed: $(sed -n '/^spec:/,/^---/d; s/^  name: //p' "$target" | paste -sd ' ')"
