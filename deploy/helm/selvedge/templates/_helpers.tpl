{{/*
Only what Go's text/template and these functions of Helm's have is used in this chart, because `selvedge
install` renders it without Helm: default, include, int, nindent, quote, toYaml.
*/}}

{{- define "selvedge.labels" -}}
{{ include "selvedge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: selvedge
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end }}

{{- define "selvedge.selector" -}}
app.kubernetes.io/name: selvedge
app.kubernetes.io/component: control-plane
{{- end }}

{{- define "selvedge.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "selvedge.registry" -}}
{{ with .Values.image.registry }}{{ . }}/{{ end }}
{{- end }}

{{- define "selvedge.controlPlaneImage" -}}
{{ include "selvedge.registry" . }}{{ .Values.controlPlane.image }}:{{ include "selvedge.tag" . }}
{{- end }}

{{- define "selvedge.proxyImage" -}}
{{ include "selvedge.registry" . }}{{ .Values.proxy.image }}:{{ include "selvedge.tag" . }}
{{- end }}

{{- define "selvedge.initImage" -}}
{{ include "selvedge.registry" . }}{{ .Values.init.image }}:{{ include "selvedge.tag" . }}
{{- end }}

{{/* Why no webhook is called for the control plane's own namespace: its pods must start when nobody answers. */}}
{{- define "selvedge.notExcluded" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values:
    - {{ .Release.Namespace | quote }}
    {{- range .Values.injector.excludedNamespaces }}
    - {{ . | quote }}
    {{- end }}
- key: selvedge.io/control-plane
  operator: DoesNotExist
{{- end }}

{{- define "selvedge.injection" -}}
admissionReviewVersions: [v1]
sideEffects: NoneOnDryRun
reinvocationPolicy: IfNeeded
matchPolicy: Equivalent
timeoutSeconds: {{ .Values.injector.timeoutSeconds }}
rules:
  - apiGroups: [""]
    apiVersions: [v1]
    operations: [CREATE]
    resources: [pods]
    scope: Namespaced
clientConfig:
  # The control plane puts its caBundle here, and renews it.
  service:
    name: selvedge-control-plane
    namespace: {{ .Release.Namespace | quote }}
    path: /inject
    port: 443
{{- end }}
