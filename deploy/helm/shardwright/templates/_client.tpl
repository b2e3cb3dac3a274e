{{- /* The chart's own clients: pods that run the command line against the coordinators. */ -}}

{{- /* Whether the coordinators would let these clients in: they know the administrator's password, or everybody may. */ -}}
{{- define "shardwright.client.known" -}}
{{- or (ne .Values.auth.existingSecret "") (eq .Values.auth.anonymous "always") }}
{{- end }}

{{- /* Flags that say where and who: (list …). */ -}}
{{- define "shardwright.client.flags" -}}
{{- $flags := list "--server" (include "shardwright.url" .) }}
{{- if .Values.tls.enabled }}
{{- $flags = concat $flags (list "--ca" "/etc/shardwright/tls/ca.crt") }}
{{- if or (eq .Values.tls.source "csi") (and (eq .Values.tls.source "existingSecret") .Values.tls.existingSecret.client) }}
{{- $flags = concat $flags (list "--cert" "/etc/shardwright/tls/tls.crt" "--key" "/etc/shardwright/tls/tls.key") }}
{{- end }}
{{- end }}
{{- if .Values.auth.existingSecret }}
{{- $flags = concat $flags (list "--user" .Values.auth.adminUser "--password-file" "/etc/shardwright/auth/password") }}
{{- end }}
{{- toJson $flags }}
{{- end }}

{{- define "shardwright.client.volumes" -}}
{{- $volumes := list (dict "name" "tmp" "emptyDir" (dict "sizeLimit" "64Mi")) }}
{{- if .root.Values.tls.enabled }}
{{- $volumes = append $volumes (include "shardwright.tls.volume" (dict "root" .root "role" "client") | fromJson) }}
{{- end }}
{{- with .root.Values.auth.existingSecret }}
{{- $items := list (dict "key" $.root.Values.auth.passwordKey "path" "password") }}
{{- $volumes = append $volumes (dict "name" "auth" "secret" (dict "secretName" . "defaultMode" 288 "items" $items)) }}
{{- end }}
{{- concat $volumes .volumes | toJson }}
{{- end }}

{{- /* The spec of such a pod: (dict "root" $ "name" "sql" "args" list "volumes" list). Each volume is mounted below /etc/shardwright. */ -}}
{{- define "shardwright.client.pod" -}}
{{- $values := .root.Values }}
{{- $volumes := include "shardwright.client.volumes" . | fromJsonArray }}
serviceAccountName: {{ include "shardwright.fullname" .root }}-client
{{- include "shardwright.pod.common" (dict "root" .root "values" $values.hooks "automount" false) }}
restartPolicy: Never
containers:
  - name: {{ .name }}
    image: {{ include "shardwright.image" .root | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args: {{ concat .args (include "shardwright.client.flags" .root | fromJsonArray) | toJson }}
    resources:
      {{- toYaml $values.hooks.resources | nindent 6 }}
    securityContext:
      {{- toYaml $values.securityContext | nindent 6 }}
    volumeMounts:
      {{- range $volumes }}
      - name: {{ .name }}
        {{- if eq .name "tmp" }}
        mountPath: /tmp
        {{- else }}
        mountPath: /etc/shardwright/{{ .name }}
        readOnly: true
        {{- end }}
      {{- end }}
volumes:
  {{- toYaml $volumes | nindent 2 }}
{{- end }}
