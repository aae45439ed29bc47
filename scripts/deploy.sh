#!/usr/bin/env bash
# deploy.sh: from nothing to a running Credenza on Kubernetes, in one command; safe to repeat.
#
#   scripts/deploy.sh                     a k3d cluster of its own, the image, everything, a smoke test
#   --env dev|staging|prod                which environment (default: dev)
#   --helm | --argocd                     by the Helm chart, or by Argo CD from Git (default: Kustomize)
#   --kubeconfig                          the cluster of KUBECONFIG instead of k3d
#   --image REFERENCE                     an image that is there already, instead of building one
#   --load COMMAND                        what brings a built image to the nodes, called with its name
#   --repo URL --revision NAME            with --argocd: where it finds this repository (default: origin, HEAD)
#   --dry-run                             show what would be done; the cluster checks it, if it has the namespace
#   --down                                remove it again: the k3d cluster, or with --kubeconfig the namespace;
#                                         of staging and prod only with --yes NAMESPACE, as volumes and backups go too
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
env=dev by=kustomize own_cluster=yes image='' load='' dry='' down='' repo='' revision=HEAD yes=''
cluster=credenza ports=(30080 30090 30030)
work=$(mktemp -d) forward=''
trap 'rm -rf "$work"; [ -z "$forward" ] || kill "$forward"' EXIT

say() { echo "deploy: $*" >&2; }
fail() { say "$*"; exit 1; }
run() { say "+ $*"; [ -n "$dry" ] || "$@"; }

while [ $# -gt 0 ]; do
  case $1 in
    --env) env=${2:?"--env needs a name"}; shift ;;
    --helm | --argocd) by=${1#--} ;;
    --kubeconfig) own_cluster='' ;;
    --image) image=${2:?"--image needs a reference"}; shift ;;
    --load) load=${2:?"--load needs a command"}; shift ;;
    --repo) repo=${2:?"--repo needs a URL"}; shift ;;
    --revision) revision=${2:?"--revision needs a name"}; shift ;;
    --dry-run) dry=yes ;;
    --down) down=yes ;;
    --yes) yes=${2:?"--yes needs the namespace"}; shift ;;
    -h | --help) sed -n '2,15p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) fail "there is no option $1; --help lists them" ;;
  esac
  shift
done
namespace=credenza-$env
case $env in dev | staging | prod) ;; *) fail "--env must be dev, staging or prod, not $env" ;; esac
[[ -z $image || $image =~ ^[^@]+:[A-Za-z0-9._-]+(@sha256:[0-9a-f]{64})?$ ]] ||
  fail "--image must be NAME:TAG or NAME:TAG@sha256:…, not $image"
builds=yes
[ -z "$image$down" ] || builds=''
case $by/$env in argocd/staging | argocd/prod) builds='' ;; esac # the image is the one that Git names

need() { command -v "$1" >/dev/null || fail "$1 is missing: $2"; }

preflight() {
  need kubectl https://kubernetes.io/docs/tasks/tools
  [ "$by" != helm ] || need helm https://helm.sh/docs/intro/install
  need curl 'your system has it as a package'
  if [ -n "$own_cluster" ]; then
    need k3d https://k3d.io
    need docker https://docs.docker.com/engine/install
  elif [ -z "$dry" ]; then
    kubectl get --raw /readyz >/dev/null 2>&1 || fail "no cluster answers; is KUBECONFIG right?"
  fi
  [ -z "$builds" ] || [ -n "$dry" ] || { need docker https://docs.docker.com/engine/install
    docker info >/dev/null 2>&1 || fail "Docker does not run, or you may not use it (group docker)"; }
  [ -z "$builds" ] || [ -n "$own_cluster$load$dry" ] ||
    fail "the nodes need the image: name one that they can pull (--image), or what loads it (--load)"
}

cluster_up() {
  local port
  if k3d cluster list "$cluster" >/dev/null 2>&1; then
    run k3d cluster start "$cluster"
  else
    for port in "${ports[@]}"; do
      ! (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null || fail "port $port is taken: what listens there?"
    done
    # A lost node is called lost after 20 s instead of 50, so that a drill of that is a short one.
    run k3d cluster create "$cluster" --agents 1 --wait --timeout 180s \
      --k3s-arg --kube-controller-manager-arg=node-monitor-grace-period=20s@server:0 \
      -p 127.0.0.1:30080:30080@server:0 -p 127.0.0.1:30090:30090@server:0 -p 127.0.0.1:30030:30030@server:0
  fi
  # From here on kubectl and helm speak to this cluster, whatever the current context is.
  [ -n "$dry" ] || { k3d kubeconfig get "$cluster" >"$work/kubeconfig"; export KUBECONFIG=$work/kubeconfig; }
}

# With Docker's containerd image store `k3d image import` fails; then the nodes take it from a pipe.
load_k3d() {
  local node
  k3d image import "$1" -c "$cluster" && return
  for node in $(k3d node list --no-headers | awk -v c="k3d-$cluster-" 'index($1, c) == 1 && $2 ~ /server|agent/ {print $1}'); do
    docker save "$1" | docker exec -i "$node" ctr -n k8s.io images import -
  done
}

build() {
  image=credenza:latest
  run docker build --tag "$image" --build-arg "REVISION=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)" "$root"
  if [ -z "$own_cluster" ]; then
    # shellcheck disable=SC2086 # a command with its arguments
    run $load "$image"
  elif [ -z "$dry" ]; then
    load_k3d "$image"
  fi
}

# The environment with the image that is asked for, as `kubectl apply -k` takes it.
kustomization() {
  local folder=$1 name
  name=$(kubectl kustomize "$root/k8s/overlays/$env" | sed -n 's#^ *image: \(.*/\)\{0,1\}credenza\([:@][^/]*\)\{0,1\}$#\1credenza#p' | head -n 1)
  [ -n "$name" ] || fail "the image of k8s/overlays/$env is not called credenza: change it there"
  printf '%s\n' 'apiVersion: kustomize.config.k8s.io/v1beta1' 'kind: Kustomization' \
    "resources: [$(realpath --relative-to="$folder" "$root/k8s/overlays/$env")]" >"$folder/kustomization.yaml"
  [ -z "$image" ] || printf '%s\n' 'images:' "  - name: $name" "    newName: $(part name)" "    newTag: $(part tag)" \
    "    digest: $(part digest)" >>"$folder/kustomization.yaml"
}

part() { # name, tag or digest of NAME:TAG[@DIGEST]
  local named=${image%@*}
  case $1 in name) echo "${named%:*}" ;; tag) echo "${named##*:}" ;; digest) [ "$named" = "$image" ] || echo "${image#*@}" ;; esac
}

secrets() { # dev has its own in Git; elsewhere what is missing is made, or said
  [ "$env" != dev ] || return 0
  local encrypted=$root/k8s/overlays/$env/secrets.sops.yaml
  run kubectl apply -f "$root/k8s/overlays/$env/namespace.yaml"
  if [ -f "$encrypted" ]; then
    need sops https://github.com/getsops/sops/releases
    say "+ sops decrypt ${encrypted#"$root/"} | kubectl apply"
    [ -n "$dry" ] || sops decrypt "$encrypted" | kubectl -n "$namespace" apply --server-side -f -
  fi
  run "$root/scripts/make-secrets.sh" "$namespace" "$env"
}

by_kustomize() {
  local folder=$work/kustomize
  mkdir "$folder"
  kustomization "$folder"
  if [ -z "$dry" ]; then
    kubectl apply -k "$folder"
  elif kubectl get namespace "$namespace" >/dev/null 2>&1; then # else the cluster cannot check it
    kubectl apply --dry-run=server -k "$folder"
  else
    kubectl kustomize "$folder"
  fi
}

by_helm() {
  local options=(--namespace "$namespace" -f "$root/charts/credenza/values-$env.yaml")
  [ -z "$image" ] || options+=(--set-string "image.registry=,image.repository=$(part name),image.tag=$(part tag),image.digest=$(part digest)")
  if [ -n "$dry" ]; then
    helm template credenza "$root/charts/credenza" "${options[@]}"
  else
    kubectl apply -f "$root/k8s/overlays/$env/namespace.yaml"
    helm upgrade --install credenza "$root/charts/credenza" "${options[@]}"
  fi
}

# From Git: what is committed and pushed, with the image that it names.
by_argocd() {
  local found commit folder=$work/argocd argocd=(kubectl --namespace argocd) app=application/credenza-$env
  found=$(sed -n 's/^ *repoURL: //p' "$root/argocd/application.yaml")
  [ "$found" != https://git.example.com/credenza.git ] || found=$(git -C "$root" remote get-url origin 2>/dev/null || true)
  repo=${repo:-$found}
  [ -n "$repo" ] || fail "--argocd needs --repo: where Argo CD finds this repository"
  mkdir "$folder"
  sed "/^  sourceRepos:/{n; s#- .*#- $repo#}" "$root/argocd/project.yaml" >"$folder/project.yaml"
  sed -E "s#(repoURL: ).*#\1$repo#; s#(targetRevision: ).*#\1$revision#; s#dev\$#$env#" \
    "$root/argocd/application.yaml" >"$folder/application.yaml"
  [ -z "$dry" ] || { cat "$folder/project.yaml" <(echo ---) "$folder/application.yaml"; return; }
  kubectl get crd applications.argoproj.io >/dev/null 2>&1 || {
    kubectl create namespace argocd --dry-run=client -o yaml | kubectl apply -f -
    "${argocd[@]}" apply --server-side -f https://raw.githubusercontent.com/argoproj/argo-cd/v3.1.9/manifests/install.yaml
    "${argocd[@]}" wait deployment --all --for=condition=Available --timeout=600s
  }
  kubectl apply -f "$folder/project.yaml" -f "$folder/application.yaml"
  "${argocd[@]}" annotate --overwrite "$app" argocd.argoproj.io/refresh=normal
  # The commit that is asked for, where it can be known here, so that an older one is not taken for it.
  commit=$(GIT_TERMINAL_PROMPT=0 git ls-remote "$repo" 2>/dev/null | awk -v r="$revision" \
    '$2 == r || $2 == "refs/heads/" r || $2 == "refs/tags/" r || $2 == "refs/tags/" r "^{}" {c = $1} END {print c}' || true)
  [ -z "$commit" ] || "${argocd[@]}" wait "$app" --for="jsonpath={.status.sync.revision}=$commit" --timeout=300s
  "${argocd[@]}" wait "$app" --for='jsonpath={.status.sync.status}=Synced' --timeout=300s
}

# A tag that stays the same tells Kubernetes nothing: what it stands for is noted beside it.
renew() {
  local id known
  [ -n "$builds" ] || return 0
  id=$(docker image inspect --format '{{.Id}}' "$image")
  known=$(kubectl -n "$namespace" get deployment credenza -o jsonpath='{.metadata.annotations.credenza/image-id}')
  [ "$known" != "$id" ] || return 0
  [ -z "$known" ] || kubectl -n "$namespace" rollout restart deployment/credenza
  kubectl -n "$namespace" annotate --overwrite deployment/credenza "credenza/image-id=$id" >/dev/null
}

why_not() { # what a person would look at next
  kubectl -n "$namespace" get pods >&2
  kubectl -n "$namespace" logs "$1" --all-containers --tail=20 >&2 || true
  fail "$1 does not become ready"
}

wait_until_ready() {
  local kind kinds
  kinds=$(kubectl -n "$namespace" get statefulset,deployment -l app.kubernetes.io/part-of=credenza -o name)
  [ -n "$kinds" ] || fail "nothing of it is in $namespace"
  for kind in $kinds; do
    kubectl -n "$namespace" rollout status "$kind" --timeout=300s || why_not "$kind"
  done
}

is_node_port() { [ "$(kubectl -n "$namespace" get service credenza -o jsonpath='{.spec.type}')" = NodePort ]; }

smoke() {
  local url=http://127.0.0.1:30080 token
  if ! is_node_port; then
    kubectl -n "$namespace" port-forward service/credenza :8000 >"$work/forward" &
    forward=$!
    for _ in {1..100}; do grep -q Forwarding "$work/forward" && break; sleep 0.1; done
    url=http://$(sed -n 's/^Forwarding from \(127[^ ]*\).*/\1/p' "$work/forward" | head -n 1)
  fi
  token=$(kubectl -n "$namespace" get secret app-secret -o jsonpath='{.data.AUTH_TOKEN}' | base64 -d)
  AUTH_TOKEN=$token "$root/scripts/smoke.sh" "$url" || fail "it runs but does not work"
}

urls() {
  local host
  host=$(kubectl -n "$namespace" get ingress credenza -o jsonpath='{.spec.rules[0].host}' 2>/dev/null || true)
  if is_node_port; then
    printf '\n  API         http://127.0.0.1:30080/docs\n  Prometheus  http://127.0.0.1:30090\n  Grafana     http://127.0.0.1:30030\n\n'
  elif [ -n "$host" ]; then
    printf '\n  API         https://%s/docs\n\n' "$host"
  else
    printf '\n  API         kubectl -n %s port-forward service/credenza 8000\n\n' "$namespace"
  fi
}

remove() {
  [ -z "$own_cluster" ] || { run k3d cluster delete "$cluster"; return; }
  [ "$env" = dev ] || [ "$yes" = "$namespace" ] || {
    kubectl -n "$namespace" get persistentvolumeclaims >&2
    fail "with $namespace go its volumes; if that is what you want, say --yes $namespace"
  }
  # First, for it would bring back what is gone.
  [ "$by" != argocd ] || run kubectl -n argocd delete application "credenza-$env" --ignore-not-found
  run kubectl delete namespace "$namespace" --ignore-not-found
}

main() {
  preflight
  [ -z "$down" ] || { remove; return; }
  [ -z "$own_cluster" ] || cluster_up
  [ -z "$builds" ] || build
  secrets
  case $by in kustomize) by_kustomize ;; helm) by_helm ;; argocd) by_argocd ;; esac
  [ -z "$dry" ] || return 0
  renew
  wait_until_ready
  smoke
  urls
}

main; exit # on one line: what becomes of this file while it runs does not matter
