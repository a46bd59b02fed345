{{- define "podwire.labels" -}}
app.kubernetes.io/name: podwire
{{- end }}

{{- define "podwire.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "podwire.netConf" -}}
{{- $conf := dict "EnableNFTables" true "Backend" .Values.backend }}
{{- if .Values.network }}
{{- $_ := set $conf "Network" .Values.network }}
{{- else if .Values.ipv6Network }}
{{- $_ := set $conf "EnableIPv4" false }}
{{- else }}
{{- fail "network and ipv6Network: both are empty (set the cluster's pod CIDR)" }}
{{- end }}
{{- if .Values.ipv6Network }}
{{- $_ := set $conf "EnableIPv6" true }}
{{- $_ := set $conf "IPv6Network" .Values.ipv6Network }}
{{- end }}
{{- mergeOverwrite $conf (deepCopy .Values.networkConfig) | toPrettyJson }}
{{- end }}

{{- define "podwire.conflist" -}}
{{- $capabilities := dict "portMappings" true "bandwidth" true }}
{{- $plugin := dict "type" "flannel" "delegate" .Values.delegate "capabilities" $capabilities }}
{{- $versions := list "1.0.0" "1.1.0" }}
{{- dict "cniVersion" "1.0.0" "cniVersions" $versions "name" "cbr0" "plugins" (list $plugin) | toPrettyJson }}
{{- end }}
