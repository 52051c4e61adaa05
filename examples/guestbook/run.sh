#!/bin/bash
# The guestbook from packages to a rollback, on the cluster that KUBECONFIG names and this machine is a node of.
#
#   examples/guestbook/run.sh [--keep]
#
# Starts a registry on loopback, builds and pushes the images, deploys the three tiers in a namespace of their own,
# signs the book through every way in, scales, rolls an update out and back, and removes what it made unless --keep
# is given. Wants Debian's docker-registry. KUBECTL names the client (default: kubectl), NAMESPACE the namespace
# (default: guestbook).
set -euo pipefail
umask 022

here=$(cd "$(dirname "$0")" && pwd)
read -ra kubectl <<<"${KUBECTL:-kubectl}"
namespace=${NAMESPACE:-guestbook}
keep=${1:-}
work=$(mktemp -d)
registry_pid=''

say() { printf '\n== %s\n' "$*"; }
die() { echo "guestbook: $*" >&2; exit 1; }
k() { "${kubectl[@]}" --namespace "$namespace" "$@"; }

finish() {
    local code=$?
    if [ "$code" != 0 ]; then
        k get pods --output wide >&2 || true
        k describe pods >&2 || true
    fi
    [ "$keep" = --keep ] || "${kubectl[@]}" delete namespace "$namespace" --ignore-not-found >/dev/null || true
    [ -z "$registry_pid" ] || kill "$registry_pid" || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT

# expect WANTED COMMAND...: the output must contain the words.
expect() {
    local wanted=$1 got
    shift
    got=$("$@") || die "failed: $*"
    case $got in *"$wanted"*) echo "$got" ;; *) die "$*: wanted $wanted, got: $got" ;; esac
}

fetch() { curl --silent --show-error --fail --max-time 10 "$@"; }

say "a registry on loopback"
command -v docker-registry >/dev/null || die "docker-registry is missing: apt-get install docker-registry"
cat >"$work/registry.yml" <<CONFIG
version: 0.1
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:0"}
CONFIG
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
registry_pid=$!
registry=''
for _ in $(seq 100); do
    registry=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$work/registry.log" | head -n 1)
    [ -z "$registry" ] || break
    kill -0 "$registry_pid" 2>/dev/null || die "the registry ended: $(cat "$work/registry.log")"
    sleep 0.1
done
[ -n "$registry" ] || die "the registry does not listen: $(cat "$work/registry.log")"
echo "$registry"

say "images from Debian packages"
"$here/build-images.sh" "$registry"

say "three tiers"
printf '{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"%s"}}' "$namespace" | "${kubectl[@]}" apply --filename -
for tier in redis backend frontend; do
    sed "s#localhost:5000#$registry#" "$here/$tier.yaml" >"$work/$tier.yaml"
    k apply --filename "$work/$tier.yaml"
done
for tier in redis backend frontend; do k rollout status "deployment/$tier" --timeout=120s; done
k get pods,services --output wide

node=$("${kubectl[@]}" get nodes --output 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
cluster_ip=$(k get service frontend --output 'jsonpath={.spec.clusterIP}')
node_port=$(k get service frontend --output 'jsonpath={.spec.ports[0].nodePort}')

say "signed through the ClusterIP, read through the NodePort and the DNS name"
expect 'first entry' fetch --data 'first entry' "http://$cluster_ip/api/entries"
expect 'first entry' fetch "http://$node:$node_port/api/entries"
expect 'first entry' k exec deployment/backend -- wget -q -O - "http://frontend.$namespace.svc.cluster.local/api/entries"
expect '<title>Guestbook' fetch "http://$node:$node_port/" >/dev/null

say "scaled to four"
k scale deployment/frontend --replicas=4
k rollout status deployment/frontend --timeout=120s
expect 4 k get deployment frontend --output 'jsonpath={.status.readyReplicas}'
for _ in $(seq 40); do fetch "http://$cluster_ip/hostname"; done | sort | uniq -c
echo

say "updated to v2, with a visitor throughout"
expect 'guestbook v1' fetch "http://$cluster_ip/version"
(
    while [ ! -e "$work/updated" ]; do
        fetch "http://$cluster_ip/version" >>"$work/visits" || echo refused >>"$work/visits"
        sleep 0.05
    done
) &
visitor=$!
k set image deployment/frontend "nginx=$registry/guestbook/frontend:v2"
k rollout status deployment/frontend --timeout=120s
touch "$work/updated"
wait "$visitor"
sort "$work/visits" | uniq -c
! grep -q refused "$work/visits" || die "the visitor was turned away during the update"
expect 'guestbook v2' fetch "http://$cluster_ip/version"

say "rolled back"
k rollout undo deployment/frontend
k rollout status deployment/frontend --timeout=120s
expect 'guestbook v1' fetch "http://$cluster_ip/version"
expect 'first entry' fetch "http://$cluster_ip/api/entries"

say "the guestbook works"
