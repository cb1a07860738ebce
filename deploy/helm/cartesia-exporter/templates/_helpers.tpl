{{- define "cartesia-exporter.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "cartesia-exporter.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cartesia-exporter.labels" -}}
{{ include "cartesia-exporter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "cartesia-exporter.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}
{{- else -}}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "cartesia-exporter.secretName" -}}
{{- if .Values.existingSecret -}}
{{- if .Values.secrets -}}
{{- fail "set secrets or existingSecret, not both" -}}
{{- end -}}
{{- .Values.existingSecret -}}
{{- else -}}
{{- include "cartesia-exporter.fullname" . -}}
{{- end -}}
{{- end -}}

{{/* The configuration goes into a ConfigMap, which more people may read than may read a Secret. */}}
{{- define "cartesia-exporter.config" -}}
{{- $sections := list .Values.config -}}
{{- range concat (default list .Values.config.accounts) (default list .Values.config.receivers) -}}
{{- $sections = append (append $sections .) (default dict .basic_auth) -}}
{{- end -}}
{{- range $section := $sections -}}
{{- range list "api_key" "bearer_token" "heartbeat_url" "password" "secret" "url" -}}
{{- if hasKey $section . -}}
{{- fail (printf "everybody who can read ConfigMaps could read %s: put it into secrets or existingSecret, and its path into %s_file" . .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml .Values.config -}}
{{- end -}}

{{/* Not empty if the state is in a database, which several agents may use at the same time. */}}
{{- define "cartesia-exporter.shared" -}}
{{- with .Values.config.storage -}}
{{- if or .url .url_file .url_env -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- define "cartesia-exporter.serviceAccountName" -}}
{{- default (ternary (include "cartesia-exporter.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "cartesia-exporter.scheme" -}}
{{- ternary "HTTPS" "HTTP" (hasKey .Values.webConfig "tls_server_config") -}}
{{- end -}}

{{/* How a probe asks; the argument is [root, path]. A kubelet has no certificate to show. */}}
{{- define "cartesia-exporter.probe" -}}
{{- $root := index . 0 -}}
{{- $tls := default dict $root.Values.webConfig.tls_server_config -}}
{{- if eq (default "" $tls.client_auth_type) "RequireAndVerifyClientCert" -}}
tcpSocket:
  port: http
{{- else -}}
httpGet:
  path: {{ index . 1 }}
  port: http
  scheme: {{ include "cartesia-exporter.scheme" $root }}
{{- end -}}
{{- end -}}

{{/* How both monitors scrape; the argument is [root, monitor]. */}}
{{- define "cartesia-exporter.endpoint" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
port: http
path: /metrics
scheme: {{ include "cartesia-exporter.scheme" $root | lower }}
interval: {{ .interval }}
scrapeTimeout: {{ .scrapeTimeout }}
{{- if include "cartesia-exporter.shared" $root }}
# Several pods run at a time, at least during an update.
{{- else }}
# There is one pod at a time. Under the same labels its series go on over a restart, and increase()
# sees what the agent saw while it was away.
{{- end }}
relabelings:
  - targetLabel: job # the rules look for a name with "cartesia" in it
    replacement: cartesia-exporter
  {{- if include "cartesia-exporter.shared" $root }}
  - sourceLabels: [__meta_kubernetes_pod_name]
    targetLabel: instance
    replacement: {{ $root.Release.Namespace }}/$1
  {{- else }}
  - targetLabel: instance
    replacement: {{ $root.Release.Namespace }}/{{ include "cartesia-exporter.fullname" $root }}
  {{- end }}
  - action: labeldrop
    regex: pod
{{- with .tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
{{- end -}}
