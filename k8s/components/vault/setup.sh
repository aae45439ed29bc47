#!/usr/bin/env bash
# setup.sh NAMESPACE: set up a Vault (VAULT_ADDR, VAULT_TOKEN) whose engines and audit device are not
# there yet. DATABASE_HOST, DATABASE_USER, DATABASE_ADMIN and DATABASE_ADMIN_PASSWORD name the PostgreSQL
# and a role in it that may change DATABASE_USER's password. Vault then owns that password.
set -euo pipefail
namespace=${1:?"usage: setup.sh NAMESPACE"}
: "${DATABASE_HOST:?host:port}" "${DATABASE_USER:?}" "${DATABASE_ADMIN:?}" "${DATABASE_ADMIN_PASSWORD:?}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Who asked for what, with each value as a keyed hash. Where no audit device can write, Vault refuses.
vault audit enable file file_path="${AUDIT_LOG:-/vault/logs/audit.log}"

vault secrets enable database
vault write database/config/credenza plugin_name=postgresql-database-plugin allowed_roles=credenza \
  connection_url="postgresql://{{username}}:{{password}}@$DATABASE_HOST/${DATABASE_NAME:-credenza}?sslmode=${DATABASE_SSLMODE:-verify-full}" \
  username="$DATABASE_ADMIN" password=- <<<"$DATABASE_ADMIN_PASSWORD"
vault write -force database/rotate-root/credenza # from here on nobody but Vault knows that password
vault write database/static-roles/credenza db_name=credenza username="$DATABASE_USER" \
  rotation_schedule="${ROTATION_SCHEDULE:-0 3 * * SAT}" rotation_window=1h

vault policy write credenza "$here/policy.hcl"
vault auth enable kubernetes
vault write auth/kubernetes/config kubernetes_host="${KUBERNETES_HOST:-https://kubernetes.default.svc}"
vault write auth/kubernetes/role/credenza bound_service_account_names=credenza-secrets \
  bound_service_account_namespaces="$namespace" token_policies=credenza token_ttl=10m
