{{- /* Names, labels and addresses. Nothing here may depend on the chart's version but `shardwright.labels`. */ -}}

{{- define "shardwright.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* At most 40 characters: a StatefulSet's name goes into a label with a hash behind it, and `-coordinator` comes between. */ -}}
{{- define "shardwright.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "shardwright.name" . }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "shardwright.cluster" -}}
{{- default (printf "%s-%s" .Release.Namespace (include "shardwright.fullname" .)) .Values.cluster }}
{{- end }}

{{- /* What selects pods, for ever: (dict "root" $ "role" "worker"). */ -}}
{{- define "shardwright.selector" -}}
app.kubernetes.io/name: {{ include "shardwright.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "shardwright.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "shardwright.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: shardwright
{{- with omit .root.Values.commonLabels "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Of pods: nothing of the version, so that an upgrade that changes nothing of a pod restarts none. */ -}}
{{- define "shardwright.podLabels" -}}
{{ include "shardwright.selector" . }}
app.kubernetes.io/part-of: shardwright
{{- with omit .root.Values.commonLabels "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The head of an object: (dict "root" $ "role" … "name" … "labels" dict "annotations" dict), the last two optional. */ -}}
{{- define "shardwright.meta" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "shardwright.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := dict }}
{{- range $name, $value := .root.Values.commonAnnotations }}{{ $_ := set $annotations $name $value }}{{ end }}
{{- range $name, $value := .annotations }}{{ $_ := set $annotations $name $value }}{{ end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "shardwright.image" -}}
{{- $image := .Values.image }}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{- define "shardwright.serviceAccount" -}}
{{- $own := printf "%s-%s" (include "shardwright.fullname" .root) .role }}
{{- default $own .values.serviceAccount.name }}
{{- end }}

{{- /* A service's name as others resolve it: (dict "root" $ "service" …). */ -}}
{{- define "shardwright.host" -}}
{{- .service }}.{{ .root.Release.Namespace }}.svc{{ with .root.Values.network.clusterDomain }}.{{ . }}{{ end }}
{{- end }}

{{- define "shardwright.scheme" -}}
{{- ternary "https" "http" .Values.tls.enabled }}
{{- end }}

{{- define "shardwright.url" -}}
{{- $service := printf "%s-coordinator" (include "shardwright.fullname" .) }}
{{- include "shardwright.scheme" . }}://{{ include "shardwright.host" (dict "root" . "service" $service) }}:{{ .Values.coordinator.service.port }}
{{- end }}

{{- define "shardwright.verifyNames" -}}
{{- $given := .Values.tls.verifyNames }}
{{- if kindIs "bool" $given }}{{ $given }}{{ else }}{{ eq .Values.tls.source "csi" }}{{ end }}
{{- end }}

{{- /* `ip` or `dns`, of a role. A coordinator's certificate must hold the host of its URL; a worker's holds its name, wherever it is. */ -}}
{{- define "shardwright.advertise" -}}
{{- $values := .root.Values }}
{{- $checked := and $values.tls.enabled (eq (include "shardwright.verifyNames" .root) "true") (eq .role "coordinator") }}
{{- $named := or $checked (hasPrefix "[" $values.network.listen) }}
{{- if ne $values.network.advertise "auto" }}{{ $values.network.advertise }}{{ else }}{{ ternary "dns" "ip" $named }}{{ end }}
{{- end }}

{{- /* Where a pod says that it is, with variables of its own: (dict "root" $ "role" …). */ -}}
{{- define "shardwright.address" -}}
{{- if eq (include "shardwright.advertise" .) "ip" }}$(POD_IP)
{{- else }}$(POD_NAME).{{ include "shardwright.host" (dict "root" .root "service" (printf "%s-%s-headless" (include "shardwright.fullname" .root) .role)) }}
{{- end }}
{{- end }}

{{- define "shardwright.autoscaled" -}}
{{- or .Values.worker.autoscaling.enabled .Values.worker.keda.enabled }}
{{- end }}
