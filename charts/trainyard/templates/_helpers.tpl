{{/* Labels of every object; the argument is the dictionary {root, component}. */}}
{{- define "trainyard.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: trainyard
{{ include "trainyard.selector" . }}
{{- end }}

{{/* Labels of pods: without the chart's version, so that a new chart version does not restart unchanged pods. */}}
{{- define "trainyard.podLabels" -}}
app.kubernetes.io/part-of: trainyard
{{ include "trainyard.selector" . }}
{{- end }}

{{/* Selector labels of pods; they never change. */}}
{{- define "trainyard.selector" -}}
app.kubernetes.io/name: trainyard-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{/* Common fields of the operator and gateway pods: placement and Pod Security `restricted`. */}}
{{- define "trainyard.pod" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .Values.podSecurityContext }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Common fields of their containers. */}}
{{- define "trainyard.container" -}}
image: {{ required "image.operator is not set: build Dockerfile.operator, push it, and set image.operator=REGISTRY/NAME:TAG" .Values.image.operator }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 2
  timeoutSeconds: 2
{{- end }}

{{/* Options of trainer pods that a spec does not set, as JSON. */}}
{{- define "trainyard.podDefaults" -}}
{{- $classes := dict "runtimeClassName" .Values.training.runtimeClassName "priorityClassName" .Values.training.priorityClassName }}
{{- $names := dict "serviceAccountName" .Values.training.serviceAccountName "schedulerName" .Values.training.schedulerName }}
{{- $access := dict "imagePullSecrets" .Values.training.imagePullSecrets "caBundle" .Values.training.caBundle }}
{{- $metadata := dict "labels" .Values.training.labels "annotations" .Values.training.annotations }}
{{- $propagated := dict "propagateLabels" .Values.training.propagateLabels "propagateAnnotations" .Values.training.propagateAnnotations }}
{{- $user := dict "securityContext" .Values.training.securityContext }}
{{- merge $classes $names $access $metadata $propagated $user | toJson }}
{{- end }}

{{/* Rejects queue values that would have no effect; renders nothing. */}}
{{- define "trainyard.queueValues" -}}
{{- if eq .Values.queue.mode "Kueue" }}
{{- $capped := or .Values.queue.namespaceGpus (not (kindIs "invalid" .Values.queue.defaultNamespaceGpus)) }}
{{- if or .Values.queue.held .Values.queue.backfill .Values.queue.preemption .Values.queue.elasticPools $capped (ne (toString .Values.queue.startSeconds) "300") }}
{{- fail "queue.held, backfill, preemption, namespaceGpus, defaultNamespaceGpus, startSeconds and elasticPools have no effect with queue.mode=Kueue: remove them, and set stopPolicy, queueingStrategy, preemption and quotas of the ClusterQueue, and waitForPodsReady and provisioning AdmissionChecks of Kueue" }}
{{- end }}
{{- else if .Values.queue.localQueue }}
{{- fail "queue.localQueue names a LocalQueue of Kueue and has no effect with queue.mode=Builtin: remove it, or set queue.mode=Kueue" }}
{{- end }}
{{- end }}
