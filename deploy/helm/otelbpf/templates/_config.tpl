{{- /* The agent's settings, as far as values differ from its defaults; .Values.config lies over all. */}}
{{- define "otelbpf.config" -}}
{{- $exporter := dict "endpoint" .Values.otlp.endpoint }}
{{- if ne .Values.otlp.compression "none" }}{{ $_ := set $exporter "compression" .Values.otlp.compression }}{{ end }}
{{- $headers := dict }}
{{- range $index, $name := keys .Values.otlp.headers | sortAlpha }}
{{- $_ := set $headers $name (printf "${env:OTLP_HEADER_%d}" $index) }}
{{- end }}
{{- with $headers }}{{ $_ := set $exporter "headers" . }}{{ end }}
{{- $tls := dict }}
{{- with .Values.otlp.tls }}
{{- if .insecure }}{{ $_ := set $tls "insecure" true }}{{ end }}
{{- if .secret }}
{{- if .ca }}{{ $_ := set $tls "ca_file" (printf "/etc/otelbpf-tls/%s" .ca) }}{{ end }}
{{- if .cert }}{{ $_ := set $tls "cert_file" (printf "/etc/otelbpf-tls/%s" .cert) }}{{ end }}
{{- if .key }}{{ $_ := set $tls "key_file" (printf "/etc/otelbpf-tls/%s" .key) }}{{ end }}
{{- end }}
{{- if .serverName }}{{ $_ := set $tls "server_name_override" .serverName }}{{ end }}
{{- end }}
{{- with $tls }}{{ $_ := set $exporter "tls" . }}{{ end }}
{{- if .Values.spool.enabled }}
{{- $spool := dict "directory" "/var/lib/otelbpf/spool" }}
{{- with .Values.spool.maxSize }}{{ $_ := set $spool "max_size" . }}{{ end }}
{{- $_ := set $exporter "spool" $spool }}
{{- end }}
{{- $config := dict "exporters" (dict (printf "otlp_%s" .Values.otlp.protocol) $exporter) }}
{{- $probes := dict }}
{{- if not .Values.probes.tcpConnection }}{{ $_ := set $probes "tcp_connection" (dict "enabled" false) }}{{ end }}
{{- if not .Values.probes.dnsLookup }}{{ $_ := set $probes "dns_lookup" (dict "enabled" false) }}{{ end }}
{{- if not .Values.probes.process }}{{ $_ := set $probes "process" (dict "enabled" false) }}{{ end }}
{{- with $probes }}{{ $_ := set $config "probes" . }}{{ end }}
{{- if not .Values.legacyNames }}{{ $_ := set $config "attributes" (dict "legacy" "off") }}{{ end }}
{{- $kubernetes := dict }}
{{- with .Values.kubernetes }}
{{- if .clusterName }}{{ $_ := set $kubernetes "cluster_name" .clusterName }}{{ end }}
{{- if ne .peers "auto" }}{{ $_ := set $kubernetes "peers" .peers }}{{ end }}
{{- if .labels }}{{ $_ := set $kubernetes "labels" .labels }}{{ end }}
{{- if .annotations }}{{ $_ := set $kubernetes "annotations" .annotations }}{{ end }}
{{- end }}
{{- with $kubernetes }}{{ $_ := set $config "kubernetes" . }}{{ end }}
{{- with .Values.resourceAttributes }}{{ $_ := set $config "resource" (dict "attributes" .) }}{{ end }}
{{- if ne (int .Values.health.port) 13134 }}
{{- $_ := set $config "health" (dict "endpoint" (printf "127.0.0.1:%d" (int .Values.health.port))) }}
{{- end }}
{{- mergeOverwrite $config (deepCopy (.Values.config | default dict)) | toYaml }}
{{- end }}
