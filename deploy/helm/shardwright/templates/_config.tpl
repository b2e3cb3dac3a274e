{{- /* The settings of each role as TOML. Passwords and keys never stand in it: files of mounted secrets are named. */ -}}

{{- define "shardwright.config.shared" -}}
{{- $telemetry := dict
  "listen" (printf "%s:%d" .Values.network.listen (int .Values.telemetry.port))
  "log" .Values.telemetry.log
  "log_format" .Values.telemetry.logFormat }}
{{- with .Values.telemetry.otlpEndpoint }}{{ $_ := set $telemetry "otlp_endpoint" . }}{{ end }}
{{- if not (kindIs "invalid" .Values.telemetry.traceRatio) }}{{ $_ := set $telemetry "trace_ratio" .Values.telemetry.traceRatio }}{{ end }}
{{- $all := dict "telemetry" $telemetry }}
{{- if .Values.tls.enabled }}
{{- $_ := set $all "tls" (dict
  "cert_path" "/etc/shardwright/tls/tls.crt"
  "key_path" "/etc/shardwright/tls/tls.key"
  "ca_path" "/etc/shardwright/tls/ca.crt"
  "verify_names" (eq (include "shardwright.verifyNames" .) "true")) }}
{{- else }}
{{- $_ := set $all "tls" (dict "plaintext" "always") }}
{{- end }}
{{- toJson $all }}
{{- end }}

{{- define "shardwright.config.store" -}}
{{- if eq .Values.etcd.mode "embedded" }}
{{- dict "url" "embedded:/var/lib/shardwright/metadata.redb" | toJson }}
{{- else }}
{{- $tls := .Values.etcd.tls }}
{{- $store := dict
  "url" (printf "%s://%s" (ternary "https" "http" $tls.enabled) (join "," .Values.etcd.endpoints))
  "connect_timeout_seconds" .Values.etcd.connectTimeoutSeconds }}
{{- if and $tls.enabled $tls.existingSecret }}
{{- $_ := set $store "ca" "/etc/shardwright/etcd-tls/ca.crt" }}
{{- if $tls.certKey }}
{{- $_ := set $store "cert" "/etc/shardwright/etcd-tls/tls.crt" }}
{{- $_ := set $store "key" "/etc/shardwright/etcd-tls/tls.key" }}
{{- end }}
{{- end }}
{{- if .Values.etcd.auth.existingSecret }}
{{- $_ := set $store "password_file" "/etc/shardwright/etcd-auth/password" }}
{{- end }}
{{- toJson $store }}
{{- end }}
{{- end }}

{{- define "shardwright.config.auth" -}}
{{- $auth := dict "anonymous" .Values.auth.anonymous }}
{{- if .Values.auth.existingSecret }}
{{- $_ := set $auth "admin_user" .Values.auth.adminUser }}
{{- $_ := set $auth "admin_password_file" "/etc/shardwright/auth/password" }}
{{- end }}
{{- with .Values.auth.peers }}{{ $_ := set $auth "peers" . }}{{ end }}
{{- $jwt := .Values.auth.jwt }}
{{- if $jwt.issuer }}
{{- $claims := dict "issuer" $jwt.issuer "jwks_url" $jwt.jwksUrl "audience" $jwt.audience "user_claim" $jwt.userClaim }}
{{- if $jwt.kubernetes }}
{{- $_ := set $claims "jwks_url" (default "https://kubernetes.default.svc/openid/v1/jwks" $jwt.jwksUrl) }}
{{- $_ := set $claims "jwks_ca_path" "/etc/shardwright/kubernetes/ca.crt" }}
{{- $_ := set $claims "jwks_token_path" "/etc/shardwright/kubernetes/token" }}
{{- end }}
{{- with $jwt.rolesClaim }}{{ $_ := set $claims "roles_claim" . }}{{ end }}
{{- $_ := set $auth "jwt" $claims }}
{{- end }}
{{- toJson $auth }}
{{- end }}

{{- define "shardwright.config.secrets" -}}
{{- $secrets := dict }}
{{- with .Values.secrets.kmsKey }}{{ $_ := set $secrets "kms_key" . }}{{ end }}
{{- if .Values.secrets.masterKey.existingSecret }}
{{- $_ := set $secrets "master_key_file" "/etc/shardwright/master-key/key" }}
{{- if .Values.secrets.masterKey.previousKeysKey }}
{{- $_ := set $secrets "previous_keys_file" "/etc/shardwright/master-key/previous" }}
{{- end }}
{{- end }}
{{- toJson $secrets }}
{{- end }}

{{- define "shardwright.config.coordinator" -}}
{{- $all := include "shardwright.config.shared" . | fromJson }}
{{- $coordinator := dict
  "cluster" (include "shardwright.cluster" .)
  "listen" (printf "%s:%d" .Values.network.listen (int .Values.coordinator.port))
  "compact" .Values.etcd.compact }}
{{- with .Values.timing }}{{ $_ := set $coordinator "timing" (deepCopy .) }}{{ end }}
{{- $_ := set $all "coordinator" $coordinator }}
{{- $_ := set $all "store" (include "shardwright.config.store" . | fromJson) }}
{{- $_ := set $all "auth" (include "shardwright.config.auth" . | fromJson) }}
{{- with include "shardwright.config.secrets" . | fromJson }}{{ $_ := set $all "secrets" . }}{{ end }}
{{- include "shardwright.overlay" (dict "to" $all "from" (omit .Values.config "worker")) }}
{{- include "shardwright.overlay" (dict "to" $all "from" .Values.coordinator.config) }}
{{- include "shardwright.toml" (dict "path" "" "map" $all) | trim }}
{{- end }}

{{- define "shardwright.config.worker" -}}
{{- $all := include "shardwright.config.shared" . | fromJson }}
{{- $worker := dict
  "coordinators" (list (include "shardwright.url" .))
  "data_dir" "/var/lib/shardwright/worker"
  "capacity" .Values.worker.capacity
  "memory_budget" (include "shardwright.bytes" .Values.worker.memoryBudget | float64)
  "exchange_memory" (include "shardwright.bytes" .Values.worker.exchangeMemory | float64)
  "exchange_listen" (printf "%s:%d" .Values.network.listen (int .Values.worker.exchangePort))
  "drain_deadline" .Values.worker.drainDeadline }}
{{- with .Values.worker.zone }}{{ $_ := set $worker "zone" . }}{{ end }}
{{- range $name := list "write_attempt_timeout" "late_write_margin" }}
{{- with get $.Values.timing $name }}{{ $_ := set $worker $name . }}{{ end }}
{{- end }}
{{- $_ := set $all "worker" $worker }}
{{- include "shardwright.overlay" (dict "to" $all "from" (omit .Values.config "coordinator" "store" "auth" "secrets")) }}
{{- include "shardwright.overlay" (dict "to" $all "from" .Values.worker.config) }}
{{- include "shardwright.toml" (dict "path" "" "map" $all) | trim }}
{{- end }}
