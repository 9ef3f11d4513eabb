{{- define "kronos-api.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "kronos-api.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: service
{{- end }}

{{- define "kronos-api.redisSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: redis
{{- end }}

{{- define "kronos-api.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "kronos-api.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* The most replicas there can be: each grants its share of the limit while Redis is down. */}}
{{- define "kronos-api.replicas" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}{{ .Values.autoscaling.maxReplicas }}
{{- else }}{{ .Values.replicas }}{{ end }}
{{- end }}

{{- /* Not empty if a pod downloads weights, with or without the init container. */}}
{{- define "kronos-api.downloads" -}}
{{- if and (or .Values.model.id .Values.settings.KRONOS_MODEL_ID) (not .Values.model.existingClaim) }}true{{ end }}
{{- end }}

{{- define "kronos-api.settings" -}}
{{- $own := dict "KRONOS_CONTAINER_WHITELIST" (join "," .Values.whitelist) }}
{{- $_ := set $own "KRONOS_REPLICAS" (include "kronos-api.replicas" .) }}
{{- if and .Values.redis.enabled (not .Values.redis.existingSecret) }}
{{- $_ := set $own "KRONOS_REDIS_URL" (printf "redis://%s-redis:6379/0" (include "kronos-api.name" .)) }}
{{- end }}
{{- if .Values.apiKeys.existingSecret }}
{{- $_ := set $own "KRONOS_API_KEYS_FILE" "/etc/kronos-api/keys/keys" }}
{{- end }}
{{- with .Values.serviceAccountTokens }}
{{- if .enabled }}
{{- $_ := set $own "KRONOS_SERVICE_ACCOUNT_AUDIENCE" .audience }}
{{- $_ := set $own "KRONOS_SERVICE_ACCOUNT_ISSUER" .issuer }}
{{- $_ := set $own "KRONOS_SERVICE_ACCOUNT_JWKS" .jwks }}
{{- if .apiServer }}
{{- $_ := set $own "KRONOS_SERVICE_ACCOUNT_CA_FILE" "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt" }}
{{- $_ := set $own "KRONOS_SERVICE_ACCOUNT_TOKEN_FILE" "/var/run/secrets/kubernetes.io/serviceaccount/token" }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.model.id }}{{- $_ := set $own "KRONOS_MODEL_ID" .Values.model.id }}{{- end }}
{{- if .Values.model.existingClaim }}{{- $_ := set $own "KRONOS_MODEL_PATH" "/models" }}{{- end }}
{{- if .Values.gpu.count }}{{- $_ := set $own "KRONOS_DEVICE" "cuda" }}{{- end }}
{{- range $name, $value := merge (deepCopy .Values.settings) $own }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- if .Values.redis.existingSecret }}
- name: KRONOS_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.existingSecret }}
      key: url
{{- end }}
{{- if include "kronos-api.downloads" . }}
- name: HF_HOME
  value: /cache/huggingface
{{- end }}
{{- end }}

{{- define "kronos-api.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
