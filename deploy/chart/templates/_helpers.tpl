{{- define "operator.name" -}}
{{- default "operator" .Values.fullnameOverride -}}
{{- end -}}

{{- define "operator.labels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: towline
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* What a component's pods are found by; takes a list of the root and the component's name. */}}
{{- define "operator.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* An image with its tag or digest; takes a list of the root and the image. */}}
{{- define "operator.imageOf" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $repository := default $image.repository $image.repo -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "operator.image" -}}
{{- include "operator.imageOf" (list . .Values.operatorConfig.image) -}}
{{- end -}}

{{- define "operator.proxyImage" -}}
{{- if or .Values.proxyConfig.image.repository .Values.proxyConfig.image.repo -}}
{{- include "operator.imageOf" (list . .Values.proxyConfig.image) -}}
{{- else -}}
{{- include "operator.image" . -}}
{{- end -}}
{{- end -}}

{{/* The namespace of the API server's proxy: never the operator's, which may make pods with any account of its own. */}}
{{- define "operator.apiServerProxyNamespace" -}}
{{- $namespace := default (printf "%s-apiserver-proxy" .Release.Namespace) .Values.apiServerProxy.namespace -}}
{{- if eq $namespace .Release.Namespace -}}
{{- fail (printf "apiServerProxy.namespace is %s, the operator's own: whoever took the operator over could use the proxy's account there; name another" $namespace) -}}
{{- end -}}
{{- if gt (len $namespace) 63 -}}
{{- fail (printf "the namespace %s is longer than 63 characters: set apiServerProxy.namespace" $namespace) -}}
{{- end -}}
{{- $namespace -}}
{{- end -}}

{{/* What is there for the time of an uninstallation alone: made before the drain runs, and gone after it, however it ends. */}}
{{- define "operator.drainHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: "-5"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end -}}

{{/* Whether this cluster holds the accounts of the namespace to what proxies need: it knows policies of this kind from 1.30 on. */}}
{{- define "operator.admission" -}}
{{- $held := and .Values.admissionPolicy.enabled (semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version) -}}
{{- if and $held (eq .Release.Namespace "kube-system") -}}
{{- fail "the release's namespace is kube-system, whose accounts are the cluster's own controllers, and the policies would hold those to what proxies need: install into a namespace of its own, or set admissionPolicy.enabled to false" -}}
{{- end -}}
{{- $held -}}
{{- end -}}

{{/* Whom a policy of this kind is for: all accounts of a namespace, because the operator makes some and gives them what it has. */}}
{{- define "operator.ownAccounts" -}}
failurePolicy: Fail
matchConditions:
  - name: an-account-of-this-namespace
    expression: request.userInfo.username.startsWith("system:serviceaccount:{{ . }}:")
{{- end -}}

{{/* Nothing stands in for it: a server that the user has not named would be sent the OAuth client's secret. */}}
{{- define "operator.loginServer" -}}
{{- required "loginServer names your coordination server, and is empty: set it, as in --set loginServer=https://control.example.com (the hosted service's is https://controlplane.tailscale.com)" .Values.loginServer | trimSuffix "/" -}}
{{- end -}}

{{- define "operator.log" -}}
{{- if eq .Values.operatorConfig.logging "dev" }}debug{{ else }}{{ .Values.operatorConfig.logging }}{{ end -}}
{{- end -}}

{{- define "operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The environment that the operator and its drain share. */}}
{{- define "operator.environment" -}}
- name: OPERATOR_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: OPERATOR_LOGIN_SERVER
  value: {{ include "operator.loginServer" . | quote }}
- name: CLIENT_ID_FILE
  value: /oauth/client_id
- name: CLIENT_SECRET_FILE
  value: /oauth/client_secret
- name: OPERATOR_LEASE
  value: {{ include "operator.name" . }}-lease
- name: OPERATOR_DEFAULT_LOAD_BALANCER
  value: {{ .Values.operatorConfig.defaultLoadBalancer | quote }}
- name: PROXY_IMAGE
  value: {{ include "operator.proxyImage" . | quote }}
- name: PROXY_TAGS
  value: {{ .Values.proxyConfig.defaultTags | quote }}
- name: TOWLINE_LOG
  value: {{ include "operator.log" . | quote }}
{{- with .Values.operatorConfig.clusterDomain }}
- name: OPERATOR_CLUSTER_DOMAIN
  value: {{ . | quote }}
{{- end }}
{{- with default .Values.operatorConfig.image.pullPolicy .Values.proxyConfig.image.pullPolicy }}
- name: PROXY_IMAGE_PULL_POLICY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.imagePullSecrets }}
- name: PROXY_IMAGE_PULL_SECRETS
  value: {{ range $index, $secret := . }}{{ if $index }},{{ end }}{{ $secret.name }}{{ end }}
{{- end }}
{{- with .Values.proxyConfig.defaultProxyClass }}
- name: PROXY_DEFAULT_CLASS
  value: {{ . | quote }}
{{- end }}
{{- with .Values.proxyConfig.priorityClassName }}
- name: PROXY_PRIORITY_CLASS_NAME
  value: {{ . | quote }}
{{- end }}
{{- if .Values.caBundle }}
- name: PROXY_CA_CONFIG_MAP
  value: {{ include "operator.name" . }}-ca
- name: TOWLINE_CA_FILE
  value: /etc/towline/ca/ca.crt
{{- end }}
{{- with .Values.operatorConfig.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "operator.mounts" -}}
- {name: oauth, mountPath: /oauth, readOnly: true}
{{- if .Values.caBundle }}
- {name: certificates, mountPath: /etc/towline/ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "operator.volumes" -}}
- name: oauth
{{- if .Values.oauthSecretVolume }}
{{ toYaml .Values.oauthSecretVolume | indent 2 }}
{{- else }}
  # Optional, so that a pod without it runs and says what is missing.
  secret: {secretName: operator-oauth, optional: true, defaultMode: 288}
{{- end }}
{{- if .Values.caBundle }}
- name: certificates
  configMap: {name: {{ include "operator.name" . }}-ca}
{{- end }}
{{- end -}}
