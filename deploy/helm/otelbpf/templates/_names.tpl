{{- define "otelbpf.name" -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- define "otelbpf.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "otelbpf.labels" -}}
{{ include "otelbpf.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "otelbpf.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "otelbpf.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "otelbpf.priorityClass" -}}
{{- .Values.priorityClass.name | default (ternary (include "otelbpf.name" .) "" .Values.priorityClass.create) }}
{{- end }}

{{- define "otelbpf.keySecret" -}}
{{- .Values.connectionId.existingSecret | default (printf "%s-connection-id" (include "otelbpf.name" .)) }}
{{- end }}

{{- define "otelbpf.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}
