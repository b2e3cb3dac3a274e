{{- /* The pods of both roles: (dict "root" $ "role" "worker" "values" .Values.worker). */ -}}

{{- define "shardwright.env" -}}
{{- $root := .root }}
{{- $field := "fieldRef" }}
{{- $env := list
  (dict "name" "POD_NAME" "valueFrom" (dict $field (dict "apiVersion" "v1" "fieldPath" "metadata.name")))
  (dict "name" "POD_NAMESPACE" "valueFrom" (dict $field (dict "apiVersion" "v1" "fieldPath" "metadata.namespace")))
  (dict "name" "POD_IP" "valueFrom" (dict $field (dict "apiVersion" "v1" "fieldPath" "status.podIP"))) }}
{{- $address := include "shardwright.address" . }}
{{- if eq .role "coordinator" }}
{{- $url := printf "%s://%s:%d" (include "shardwright.scheme" $root) $address (int $root.Values.coordinator.port) }}
{{- $env = append $env (dict "name" "SHARDWRIGHT_COORDINATOR_ADVERTISE" "value" $url) }}
{{- if and (eq $root.Values.etcd.mode "external") $root.Values.etcd.auth.existingSecret }}
{{- $user := dict "name" $root.Values.etcd.auth.existingSecret "key" $root.Values.etcd.auth.usernameKey }}
{{- $env = append $env (dict "name" "SHARDWRIGHT_STORE_USER" "valueFrom" (dict "secretKeyRef" $user)) }}
{{- end }}
{{- else }}
{{- /* The pod's UID, even where a volume outlives the pod: that an earlier pod is over is known of this one only. */ -}}
{{- $env = concat $env (list
  (dict "name" "SHARDWRIGHT_WORKER_NAME" "value" "$(POD_NAME)")
  (dict "name" "SHARDWRIGHT_WORKER_INSTANCE" "valueFrom" (dict $field (dict "apiVersion" "v1" "fieldPath" "metadata.uid")))
  (dict "name" "SHARDWRIGHT_WORKER_EXCHANGE_ADVERTISE" "value" (printf "%s:%d" $address (int $root.Values.worker.exchangePort)))) }}
{{- if and (not $root.Values.worker.zone) $root.Values.worker.zoneLabel }}
{{- $label := dict "apiVersion" "v1" "fieldPath" (printf "metadata.labels['%s']" $root.Values.worker.zoneLabel) }}
{{- $env = append $env (dict "name" "SHARDWRIGHT_WORKER_ZONE" "valueFrom" (dict $field $label)) }}
{{- end }}
{{- end }}
{{- if $root.Values.telemetry.otlpEndpoint }}
{{- /* A collector does not see from which pod it is called. */ -}}
{{- $pod := "k8s.pod.name=$(POD_NAME),k8s.namespace.name=$(POD_NAMESPACE)" }}
{{- $env = append $env (dict "name" "OTEL_RESOURCE_ATTRIBUTES" "value" $pod) }}
{{- end }}
{{- with $root.Values.aws.region }}
{{- $env = append $env (dict "name" "AWS_REGION" "value" .) }}
{{- end }}
{{- with $root.Values.aws.existingSecret }}
{{- $env = concat $env (list
  (dict "name" "AWS_ACCESS_KEY_ID" "valueFrom" (dict "secretKeyRef" (dict "name" . "key" $root.Values.aws.accessKeyIdKey)))
  (dict "name" "AWS_SECRET_ACCESS_KEY" "valueFrom" (dict "secretKeyRef" (dict "name" . "key" $root.Values.aws.secretAccessKeyKey)))) }}
{{- end }}
{{- include "shardwright.merged" (dict "key" "name" "lists" (list $env $root.Values.extraEnv .values.extraEnv)) }}
{{- end }}

{{- /* The volume with the certificate of a role: coordinator, worker or client. */ -}}
{{- define "shardwright.tls.volume" -}}
{{- $root := .root }}
{{- $tls := $root.Values.tls }}
{{- $fullname := include "shardwright.fullname" $root }}
{{- if eq $tls.source "csi" }}
{{- $headless := printf "%s-%s-headless" $fullname .role }}
{{- $names := list "${POD_NAME}" (printf "${POD_NAME}.%s.${POD_NAMESPACE}.svc" $headless) }}
{{- if eq .role "coordinator" }}{{ $names = concat $names (include "shardwright.tls.names" $root | fromJsonArray) }}{{ end }}
{{- if $root.Values.network.clusterDomain }}
{{- $names = append $names (printf "${POD_NAME}.%s.${POD_NAMESPACE}.svc.%s" $headless $root.Values.network.clusterDomain) }}
{{- end }}
{{- $attributes := dict
  "csi.cert-manager.io/issuer-name" $tls.certManager.issuerRef.name
  "csi.cert-manager.io/issuer-kind" $tls.certManager.issuerRef.kind
  "csi.cert-manager.io/issuer-group" $tls.certManager.issuerRef.group
  "csi.cert-manager.io/common-name" "${POD_NAME}"
  "csi.cert-manager.io/dns-names" (join "," $names)
  "csi.cert-manager.io/key-usages" "digital signature,server auth,client auth"
  "csi.cert-manager.io/key-encoding" "PKCS8"
  "csi.cert-manager.io/duration" $tls.certManager.duration
  "csi.cert-manager.io/renew-before" $tls.certManager.renewBefore
  "csi.cert-manager.io/fs-group" (printf "%v" $root.Values.podSecurityContext.fsGroup) }}
{{- dict "name" "tls" "csi" (dict "driver" "csi.cert-manager.io" "readOnly" true "volumeAttributes" $attributes) | toJson }}
{{- else }}
{{- $items := list (dict "key" "tls.crt" "path" "tls.crt") (dict "key" "tls.key" "path" "tls.key") (dict "key" "ca.crt" "path" "ca.crt") }}
{{- $role := .role }}
{{- if and (eq $role "client") (not (and (eq $tls.source "existingSecret") $tls.existingSecret.client)) }}
{{- $role = "coordinator" }}
{{- $items = list (dict "key" "ca.crt" "path" "ca.crt") }}
{{- end }}
{{- $secret := ternary (get $tls.existingSecret $role) (printf "%s-%s-tls" $fullname $role) (eq $tls.source "existingSecret") }}
{{- dict "name" "tls" "secret" (dict "secretName" $secret "defaultMode" 288 "items" $items) | toJson }}
{{- end }}
{{- end }}

{{- define "shardwright.volumes" -}}
{{- $root := .root }}
{{- $values := $root.Values }}
{{- $name := printf "%s-%s" (include "shardwright.fullname" $root) .role }}
{{- $volumes := list
  (dict "name" "config" "configMap" (dict "name" $name "defaultMode" 292))
  (dict "name" "tmp" "emptyDir" (dict "sizeLimit" "256Mi")) }}
{{- $kept := ternary (eq $values.etcd.mode "embedded") $values.worker.persistence.enabled (eq .role "coordinator") }}
{{- if not $kept }}
{{- $volumes = append $volumes (dict "name" "data" "emptyDir" (dict)) }}
{{- end }}
{{- if $values.tls.enabled }}
{{- $volumes = append $volumes (include "shardwright.tls.volume" . | fromJson) }}
{{- end }}
{{- if eq .role "coordinator" }}
{{- with include "shardwright.secret.volumes" $root | fromJsonArray }}{{ $volumes = concat $volumes . }}{{ end }}
{{- end }}
{{- include "shardwright.merged" (dict "key" "name" "lists" (list $volumes $values.extraVolumes .values.extraVolumes)) }}
{{- end }}

{{- /* Modes: 288 is 0440, 292 is 0444; the group is the pod's fsGroup. */ -}}
{{- define "shardwright.secret.volumes" -}}
{{- $volumes := list }}
{{- $etcd := .Values.etcd }}
{{- if eq $etcd.mode "external" }}
{{- if and $etcd.tls.enabled $etcd.tls.existingSecret }}
{{- $items := list (dict "key" $etcd.tls.caKey "path" "ca.crt") }}
{{- if $etcd.tls.certKey }}
{{- $items = concat $items (list (dict "key" $etcd.tls.certKey "path" "tls.crt") (dict "key" $etcd.tls.privateKeyKey "path" "tls.key")) }}
{{- end }}
{{- $volumes = append $volumes (dict "name" "etcd-tls" "secret" (dict "secretName" $etcd.tls.existingSecret "defaultMode" 288 "items" $items)) }}
{{- end }}
{{- with $etcd.auth.existingSecret }}
{{- $items := list (dict "key" $etcd.auth.passwordKey "path" "password") }}
{{- $volumes = append $volumes (dict "name" "etcd-auth" "secret" (dict "secretName" . "defaultMode" 288 "items" $items)) }}
{{- end }}
{{- end }}
{{- with .Values.auth.existingSecret }}
{{- $items := list (dict "key" $.Values.auth.passwordKey "path" "password") }}
{{- $volumes = append $volumes (dict "name" "auth" "secret" (dict "secretName" . "defaultMode" 288 "items" $items)) }}
{{- end }}
{{- if .Values.auth.jwt.kubernetes }}
{{- $authority := dict "configMap" (dict "name" "kube-root-ca.crt" "items" (list (dict "key" "ca.crt" "path" "ca.crt"))) }}
{{- $token := dict "serviceAccountToken" (dict "path" "token" "expirationSeconds" 3600) }}
{{- $volumes = append $volumes (dict "name" "kubernetes" "projected" (dict "defaultMode" 288 "sources" (list $authority $token))) }}
{{- end }}
{{- with .Values.secrets.masterKey.existingSecret }}
{{- $master := $.Values.secrets.masterKey }}
{{- $items := list (dict "key" $master.key "path" "key") }}
{{- with $master.previousKeysKey }}{{ $items = append $items (dict "key" . "path" "previous") }}{{ end }}
{{- $volumes = append $volumes (dict "name" "master-key" "secret" (dict "secretName" . "defaultMode" 288 "items" $items)) }}
{{- end }}
{{- toJson $volumes }}
{{- end }}

{{- define "shardwright.mounts" -}}
{{- $values := .root.Values }}
{{- $mounts := list
  (dict "name" "config" "mountPath" "/etc/shardwright/config" "readOnly" true)
  (dict "name" "tmp" "mountPath" "/tmp")
  (dict "name" "data" "mountPath" "/var/lib/shardwright") }}
{{- if $values.tls.enabled }}
{{- $mounts = append $mounts (dict "name" "tls" "mountPath" "/etc/shardwright/tls" "readOnly" true) }}
{{- end }}
{{- if eq .role "coordinator" }}
{{- range include "shardwright.secret.volumes" .root | fromJsonArray }}
{{- $mounts = append $mounts (dict "name" .name "mountPath" (printf "/etc/shardwright/%s" .name) "readOnly" true) }}
{{- end }}
{{- end }}
{{- include "shardwright.merged" (dict "key" "mountPath" "lists" (list $mounts $values.extraVolumeMounts .values.extraVolumeMounts)) }}
{{- end }}

{{- /* (dict "probe" … "http" "/livez" "port" 7070). */ -}}
{{- define "shardwright.probe" -}}
{{- if eq (default "http" .probe.type) "grpc" }}
grpc: {port: {{ .port }}}
{{- else }}
httpGet: {path: {{ .http }}, port: telemetry}
{{- end }}
periodSeconds: {{ .probe.periodSeconds }}
timeoutSeconds: {{ .probe.timeoutSeconds }}
failureThreshold: {{ .probe.failureThreshold }}
{{- end }}

{{- define "shardwright.spread" -}}
{{- $selector := include "shardwright.selector" . | fromYaml }}
{{- $hard := eq .values.spread "hard" }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- else }}
{{- if ne .values.spread "none" }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ ternary "DoNotSchedule" "ScheduleAnyway" $hard }}
    labelSelector:
      matchLabels: {{- toYaml $selector | nindent 8 }}
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- toYaml $selector | nindent 8 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "shardwright.security" -}}
{{- $context := deepCopy .base }}
{{- include "shardwright.overlay" (dict "to" $context "from" .over) }}
{{- toYaml $context }}
{{- end }}

{{- define "shardwright.grace" -}}
{{- $given := .values.terminationGracePeriodSeconds }}
{{- if not (kindIs "invalid" $given) }}{{ $given }}
{{- else }}{{ add (include "shardwright.seconds" .values.drainDeadline | int64) 20 }}
{{- end }}
{{- end }}

{{- /* Where pods run and as whom; the chart's own jobs share the first half with the roles. */ -}}
{{- define "shardwright.pod.common" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
automountServiceAccountToken: {{ .automount }}
{{- if kindIs "bool" .root.Values.hostUsers }}
hostUsers: {{ .root.Values.hostUsers }}
{{- end }}
# Kubernetes would give every pod a SHARDWRIGHT_… variable for each service of the namespace.
enableServiceLinks: false
securityContext:
  {{- include "shardwright.security" (dict "base" .root.Values.podSecurityContext "over" (default dict .values.podSecurityContext)) | nindent 2 }}
{{- with .root.Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "shardwright.container" -}}
{{- $values := .root.Values }}
name: {{ .role }}
image: {{ include "shardwright.image" .root | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: {{ concat (list .role "--config" (printf "/etc/shardwright/config/%s.toml" .role)) .values.extraArgs | toJson }}
env:
  {{- include "shardwright.env" . | fromJsonArray | toYaml | nindent 2 }}
{{- with concat $values.extraEnvFrom .values.extraEnvFrom | uniq }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- if eq .role "coordinator" }}
  - {name: grpc, containerPort: {{ .values.port }}, protocol: TCP}
  {{- else }}
  - {name: exchange, containerPort: {{ .values.exchangePort }}, protocol: TCP}
  {{- end }}
  - {name: telemetry, containerPort: {{ $values.telemetry.port }}, protocol: TCP}
{{- $port := default 0 .values.port }}
startupProbe:
  {{- include "shardwright.probe" (dict "probe" .values.probes.startup "http" "/livez" "port" $port) | trim | nindent 2 }}
livenessProbe:
  {{- include "shardwright.probe" (dict "probe" .values.probes.liveness "http" "/livez" "port" $port) | trim | nindent 2 }}
readinessProbe:
  {{- include "shardwright.probe" (dict "probe" .values.probes.readiness "http" "/readyz" "port" $port) | trim | nindent 2 }}
{{- if and (eq .role "coordinator") .values.preStopSleepSeconds (semverCompare ">=1.30.0-0" .root.Capabilities.KubeVersion.Version) }}
lifecycle:
  preStop:
    sleep: {seconds: {{ .values.preStopSleepSeconds }}}
{{- end }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
securityContext:
  {{- include "shardwright.security" (dict "base" $values.securityContext "over" .values.securityContext) | nindent 2 }}
volumeMounts:
  {{- include "shardwright.mounts" . | fromJsonArray | toYaml | nindent 2 }}
{{- end }}

{{- define "shardwright.pod" -}}
{{- $values := .root.Values }}
metadata:
  labels:
    {{- omit .values.podLabels "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" | merge (include "shardwright.podLabels" . | fromYaml) | toYaml | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .role }}
    checksum/config: {{ include (printf "shardwright.config.%s" .role) .root | sha256sum }}
    {{- range $name, $value := .root.Values.commonAnnotations }}
    {{- if not (hasKey $.values.podAnnotations $name) }}
    {{ $name }}: {{ $value | quote }}
    {{- end }}
    {{- end }}
    {{- range $name, $value := .values.podAnnotations }}
    {{ $name }}: {{ $value | quote }}
    {{- end }}
spec:
  serviceAccountName: {{ include "shardwright.serviceAccount" . }}
  {{- include "shardwright.pod.common" (dict "root" .root "values" .values "automount" .values.serviceAccount.automountToken) | trim | nindent 2 }}
  terminationGracePeriodSeconds: {{ include "shardwright.grace" . }}
  {{- with include "shardwright.spread" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with include "shardwright.merged" (dict "key" "name" "lists" (list $values.extraInitContainers .values.extraInitContainers)) | fromJsonArray }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - {{ include "shardwright.container" . | trim | nindent 6 | trim }}
    {{- with include "shardwright.merged" (dict "key" "name" "lists" (list .values.extraContainers)) | fromJsonArray }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "shardwright.volumes" . | fromJsonArray | toYaml | nindent 4 }}
{{- end }}
