{{/* metadata of an object: (list $ NAME [APP]). APP is whose part it is. */}}
{{- define "credenza.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- if gt (len .) 2 }}
  app.kubernetes.io/name: {{ index . 2 }}
  app.kubernetes.io/part-of: credenza
  {{- end }}
  app.kubernetes.io/instance: {{ $root.Release.Name }}
  app.kubernetes.io/managed-by: {{ $root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* metadata of an object in another namespace: (list NAMESPACE $ NAME [APP]). */}}
{{- define "credenza.metadataIn" -}}
{{- $own := printf "namespace: %s\n" (index . 1).Release.Namespace -}}
{{- include "credenza.metadata" (rest .) | replace $own (printf "namespace: %s\n" (first .)) -}}
{{- end }}

{{/* The namespace of the nodes' collectors, which see folders of the node: the release's may not. */}}
{{- define "credenza.logsNamespace" -}}
{{- .Release.Namespace }}-logs
{{- end }}

{{/* All namespaces that the chart puts pods into, separated by blanks. */}}
{{- define "credenza.namespaces" -}}
{{- .Release.Namespace }}
{{- if .Values.nodeLogs.enabled }} {{ include "credenza.logsNamespace" . }}
{{- end }}
{{- end }}

{{/* The name of an image: (list $ IMAGE). */}}
{{- define "credenza.image" -}}
{{- $image := index . 1 -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{- $image.repository }}:{{ $image.tag | default (printf "v%s" (index . 0).Chart.AppVersion) -}}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{/* What every pod has: secrets for pulling images. */}}
{{- define "credenza.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Text of a setting: Helm reads whole numbers as floating ones, and would write 3.3554432e+07. */}}
{{- define "credenza.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/* The settings of the service. Before 1.21 PgBouncer keeps no prepared statements. */}}
{{- define "credenza.config" -}}
{{- $config := .Values.config }}
{{- if .Values.tracing.enabled }}
{{- $config = merge (dict) $config (dict "OTEL_EXPORTER_OTLP_ENDPOINT" "http://collector:4318") }}
{{- end }}
{{- if .Values.pgbouncer.enabled }}
{{- $config = merge (dict) $config (dict "DATABASE_STATEMENT_CACHE" 0) }}
{{- end }}
{{- range $name, $value := $config }}
{{ $name }}: {{ include "credenza.text" $value | quote }}
{{- end }}
{{- end }}

{{/* What makes the pods of the service anew: their settings and, where the chart makes them, secrets. */}}
{{- define "credenza.checksum" -}}
{{- $secrets := ternary .Values.secrets.app (dict) .Values.secrets.create -}}
{{- print (include "credenza.config" .) (toJson $secrets) | sha256sum -}}
{{- end }}

{{/* An environment variable out of a Secret: (list NAME SECRET KEY [optional]). */}}
{{- define "credenza.env" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
      {{- if gt (len .) 3 }}
      optional: true
      {{- end }}
{{- end }}

{{/* The Secret whose AUTH_TOKEN counts: a file wins over a variable. */}}
{{- define "credenza.tokenSecret" -}}
{{- .Values.secrets.files | default .Values.secrets.existing.app -}}
{{- end }}

{{/* The authority of a provider: where it is mounted, and from where. */}}
{{- define "credenza.caMount" -}}
- name: provider-ca
  mountPath: /etc/credenza/ca
  readOnly: true
{{- end }}

{{- define "credenza.caVolume" -}}
- name: provider-ca
  configMap:
    name: {{ .Values.managedServices.caConfigMap }}
{{- end }}

{{/* pgbouncer.ini with the host that it leads to. */}}
{{- define "credenza.pgbouncer" -}}
{{- .Files.Get "files/pgbouncer/pgbouncer.ini" | replace "host=postgres " (printf "host=%s " .Values.pgbouncer.host) -}}
{{- end }}

{{/* prometheus.yml, which sends alerts where there is somebody to take them. */}}
{{- define "credenza.prometheus" -}}
{{- $text := .Files.Get "files/monitoring/prometheus/prometheus.yml" -}}
{{- ternary $text (regexReplaceAll "(?m)^alerting:\n( .*\n)+\n" $text "") .Values.alertmanager.enabled -}}
{{- end }}

{{/* Prometheus's configuration, a file each: prometheus.yml, and what else it scrapes. */}}
{{- define "credenza.prometheusFiles" -}}
prometheus.yml: |
  {{- include "credenza.prometheus" . | nindent 2 }}
{{- if .Values.clusterMetrics.enabled }}
scrape-cluster.yml: |
  {{- .Files.Get "files/scrape/scrape-cluster.yml" | nindent 2 }}
{{- end }}
{{- if .Values.kubeletMetrics.enabled }}
scrape-kubelet.yml: |
  {{- .Files.Get "files/scrape/scrape-kubelet.yml" | nindent 2 }}
{{- end }}
{{- if .Values.logs.enabled }}
scrape-node-logs.yml: |
  {{- .Files.Get "files/scrape/scrape-node-logs.yml" | replace "NAMESPACE" .Release.Namespace | nindent 2 }}
{{- end }}
{{- end }}

{{/* Prometheus's rules, a file each. */}}
{{- define "credenza.rules" -}}
{{- $root := . -}}
{{- range $path, $_ := .Files.Glob "files/monitoring/prometheus/rules/*.yml" }}
{{ base $path }}: |
  {{- $root.Files.Get $path | nindent 2 }}
{{- end }}
{{- end }}
