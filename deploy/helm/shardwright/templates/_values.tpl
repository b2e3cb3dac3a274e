{{- /* Values into other values: merging, durations, quantities. */ -}}

{{- /* Lists into one, by the field `key`; a later item replaces an earlier one in its place: (dict "key" "name" "lists" …). */ -}}
{{- define "shardwright.merged" -}}
{{- $key := .key }}
{{- $order := list }}
{{- $items := dict }}
{{- range .lists }}
{{- range . }}
{{- $id := get . $key | toString }}
{{- if not (hasKey $items $id) }}{{ $order = append $order $id }}{{ end }}
{{- $_ := set $items $id . }}
{{- end }}
{{- end }}
{{- $merged := list }}
{{- range $order }}{{ $merged = append $merged (get $items .) }}{{ end }}
{{- toJson $merged }}
{{- end }}

{{- /* Writes a map over another, section by section, in place: (dict "to" … "from" …). Unlike merge it also writes `false`. */ -}}
{{- define "shardwright.overlay" -}}
{{- $to := .to }}
{{- range $name, $value := .from }}
{{- if and (kindIs "map" $value) (kindIs "map" (get $to $name)) }}
{{- include "shardwright.overlay" (dict "to" (get $to $name) "from" $value) }}
{{- else if kindIs "map" $value }}
{{- $_ := set $to $name (deepCopy $value) }}
{{- else if not (kindIs "invalid" $value) }}
{{- $_ := set $to $name $value }}
{{- end }}
{{- end }}
{{- end }}

{{- /* `200ms`, `10s`, `2m`, `1h` in whole seconds, rounded up. */ -}}
{{- define "shardwright.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- if eq $unit "ms" }}{{ div (add $number 999) 1000 }}
{{- else if eq $unit "m" }}{{ mul $number 60 }}
{{- else if eq $unit "h" }}{{ mul $number 3600 }}
{{- else }}{{ $number }}
{{- end }}
{{- end }}

{{- /* A quantity of memory in bytes. */ -}}
{{- define "shardwright.bytes" -}}
{{- $text := ternary (printf "%.0f" .) (toString .) (kindIs "float64" .) }}
{{- $number := regexFind "^[0-9]+" $text | int64 }}
{{- $unit := regexFind "[A-Za-z]*$" $text }}
{{- $powers := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- mul $number (get $powers $unit | int64) }}
{{- end }}

{{- /* A map as TOML: (dict "path" "" "map" …). Plain keys first, as TOML wants it, then the sections. */ -}}
{{- define "shardwright.toml" -}}
{{- $path := .path }}
{{- $map := .map }}
{{- $plain := false }}
{{- range $name, $value := $map }}{{ if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}{{ $plain = true }}{{ end }}{{ end }}
{{- if and $plain $path }}
[{{ $path }}]
{{- end }}
{{- range $name, $value := $map }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ $name }} = {{ include "shardwright.toml.value" $value }}
{{- end }}
{{- end }}
{{- range $name, $value := $map }}
{{- if kindIs "map" $value }}
{{- include "shardwright.toml" (dict "path" (ternary (printf "%s.%s" $path $name) $name (ne $path "")) "map" $value) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Numbers of values.yaml arrive as floats: 7070 must not become 7070.0 or 7.07e+03. */ -}}
{{- define "shardwright.toml.value" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}
{{- else if kindIs "slice" . }}[
{{- range $at, $one := . }}{{ if $at }}, {{ end }}{{ include "shardwright.toml.value" $one }}{{ end -}}
]
{{- else }}{{ toJson . }}
{{- end }}
{{- end }}
