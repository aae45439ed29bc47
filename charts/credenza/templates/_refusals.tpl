{{/* What cannot be meant: rendering ends with the name of the value. */}}
{{- define "credenza.refuse" -}}
{{- include "credenza.refusePasswords" . -}}
{{- include "credenza.refuseMissingSecrets" . -}}
{{- include "credenza.refuseDatabases" . -}}
{{- include "credenza.refuseReplicas" . -}}
{{- if and .Values.nodeLogs.enabled (not .Values.logs.enabled) }}
{{- fail "nodeLogs.enabled needs logs.enabled: there is no Loki to send lines to" }}
{{- end }}
{{- if eq (include "credenza.text" .Values.config.PORT) (include "credenza.text" .Values.config.METRICS_PORT) }}
{{- fail "config.METRICS_PORT is the same as config.PORT: it must be another one" }}
{{- end }}
{{- end }}

{{- define "credenza.refusePasswords" -}}
{{- $environment := .Values.config.ENVIRONMENT | default "development" -}}
{{- if not (has $environment (list "dev" "development")) }}
{{- range $secret := list "app" "postgres" "redis" "grafana" }}
{{- range $key, $value := index $.Values.secrets $secret }}
{{- if contains "dev-only-" $value }}
{{- fail (printf "secrets.%s.%s has a password that is published: those that begin with dev-only- are for development alone, and config.ENVIRONMENT is %s" $secret $key $environment) }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if contains "dev-only-" (toString .value) }}
{{- fail (printf "extraEnv: %s has a password that is published: those that begin with dev-only- are for development alone, and config.ENVIRONMENT is %s" .name $environment) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "credenza.refuseMissingSecrets" -}}
{{- with .Values.secrets }}
{{- if .create }}
{{- $_ := required "secrets.app.DATABASE_URL is needed where secrets.create is on" .app.DATABASE_URL }}
{{- $_ := required "secrets.app.REDIS_URL is needed where secrets.create is on" .app.REDIS_URL }}
{{- if and (eq $.Values.config.AUTH "token") (not $.Values.config.AUTH_TOKEN_FILE) (not .files) }}
{{- $_ := required "secrets.app.AUTH_TOKEN is needed where secrets.create is on and config.AUTH is token" .app.AUTH_TOKEN }}
{{- end }}
{{- if $.Values.postgres.enabled }}
{{- $_ := required "secrets.postgres.POSTGRES_PASSWORD is needed where secrets.create is on" .postgres.POSTGRES_PASSWORD }}
{{- end }}
{{- if $.Values.redis.enabled }}
{{- $_ := required "secrets.redis.REDIS_PASSWORD is needed where secrets.create is on" .redis.REDIS_PASSWORD }}
{{- end }}
{{- if $.Values.grafana.enabled }}
{{- $_ := required "secrets.grafana.GF_SECURITY_ADMIN_PASSWORD is needed where secrets.create is on" .grafana.GF_SECURITY_ADMIN_PASSWORD }}
{{- end }}
{{- else }}
{{- range $key := list "DATABASE_URL" "REDIS_URL" "AUTH_TOKEN" "MIGRATION_DATABASE_URL" "SECRET_KEY" }}
{{- if index $.Values.secrets.app $key }}
{{- fail (printf "secrets.app.%s says nothing where secrets.create is off: the Secret that secrets.existing.app names has it" $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "credenza.refuseDatabases" -}}
{{- with .Values }}
{{- if and .cloudnativepg.enabled .postgres.enabled }}
{{- fail "cloudnativepg.enabled and postgres.enabled are two databases: turn one off" }}
{{- end }}
{{- if and .cloudnativepg.enabled .pgbouncer.enabled }}
{{- fail "cloudnativepg.enabled and pgbouncer.enabled contradict each other: the operator has a pooler of its own" }}
{{- end }}
{{- if and .cloudnativepg.enabled .backup.enabled }}
{{- fail "cloudnativepg.enabled and backup.enabled contradict each other: backups would be of the database that app-secret names; use the operator's archive" }}
{{- end }}
{{- range $owner := list "pgbouncer" "cloudnativepg" }}
{{- if and $.Values.secrets.files (index $.Values $owner).enabled }}
{{- fail (printf "secrets.files and %s.enabled contradict each other: the service's password for the database comes from another Secret there" $owner) }}
{{- end }}
{{- end }}
{{- if and .pgbouncer.enabled (not .postgres.enabled) (eq .pgbouncer.host "postgres") }}
{{- fail "pgbouncer.host is postgres, but postgres.enabled is off: name your server" }}
{{- end }}
{{- if .networkPolicy.enabled }}
{{- if not (or .postgres.enabled .cloudnativepg.enabled .managedServices.enabled) }}
{{- fail "postgres.enabled, cloudnativepg.enabled and managedServices.enabled are all off: no policy lets the service reach a database" }}
{{- end }}
{{- if not (or .redis.enabled .managedServices.enabled) }}
{{- fail "redis.enabled and managedServices.enabled are both off: no policy lets the service reach Redis" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "credenza.refuseReplicas" -}}
{{- with .Values }}
{{- $least := .replicaCount -}}
{{- if .autoscaling.enabled }}
{{- $least = .autoscaling.minReplicas }}
{{- if lt (int .autoscaling.maxReplicas) (int .autoscaling.minReplicas) }}
{{- fail "autoscaling.maxReplicas is less than autoscaling.minReplicas" }}
{{- end }}
{{- if not (dig "requests" "cpu" "" .resources) }}
{{- fail "autoscaling.enabled needs resources.requests.cpu: autoscaling.cpuUtilization is in percent of it" }}
{{- end }}
{{- else if gt (int .autoscaling.requestsPerSecond) 0 }}
{{- fail "autoscaling.requestsPerSecond says nothing where autoscaling.enabled is off" }}
{{- end }}
{{- if and .pdb.enabled (ge (int .pdb.minAvailable) (int $least)) }}
{{- fail (printf "pdb.minAvailable (%v) is not less than the replicas (%v): no drain of a node would ever end; have more replicas, or turn pdb.enabled off" .pdb.minAvailable $least) }}
{{- end }}
{{- end }}
{{- end }}
