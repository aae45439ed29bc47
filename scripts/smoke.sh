#!/usr/bin/env bash
# smoke.sh URL: does it work? Writes a document, reads it, changes it, lists it and deletes it again.
# With AUTH_TOKEN in the environment it shows the token. Everything that says "it works" asks this.
set -euo pipefail

url=${1:?"usage: smoke.sh URL, for example smoke.sh http://127.0.0.1:30080"}
url=${url%/}
name=smoke-$(date +%s)-$$
collection=$url/v1/data/$name
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Headers come from a file: what stands in the arguments of a process can be seen by others.
echo 'Content-Type: application/json' >"$folder/headers"
[ -z "${AUTH_TOKEN:-}" ] || echo "Authorization: Bearer $AUTH_TOKEN" >>"$folder/headers"

fail() { echo "smoke: $url: $*" >&2; exit 1; }

# expect STATUS METHOD URL [ARGUMENT…]: one request; the answer is in $folder/body and $folder/head.
expect() {
  local wanted=$1 method=$2 target=$3 got
  shift 3
  got=$(curl --silent --show-error --max-time 20 --output "$folder/body" --dump-header "$folder/head" \
    --write-out '%{http_code}' --request "$method" --header "@$folder/headers" "$@" "$target") ||
    fail "$method $target: no answer"
  [ "$got" = "$wanted" ] || fail "$method $target: $got instead of $wanted: $(head -c 300 "$folder/body")"
}

holds() { grep -qF -- "$1" "$folder/body" || fail "$2: $(head -c 300 "$folder/body")"; }

etag() { sed -n 's/^[Ee][Tt][Aa][Gg]: *\([^[:space:]]*\).*/\1/p' "$folder/head"; }

expect 200 GET "$url/health/ready"
expect 201 PUT "$collection/one" --data '{"name": "Ada", "exact": 9007199254740993}'
expect 200 GET "$collection/one"
holds 9007199254740993 'what was written is not what is read'
etag=$(etag)
expect 304 GET "$collection/one" -H "If-None-Match: $etag"
expect 200 PUT "$collection/one" -H "If-Match: $etag" --data '{"name": "Grace"}'
expect 412 PUT "$collection/one" -H "If-Match: $etag" --data '{"name": "lost"}'
expect 200 GET "$collection?name=eq.Grace"
holds '"Grace"' 'the list misses what was written'
expect 204 DELETE "$collection/one"
expect 404 GET "$collection/one"
expect 200 GET "$url/v1/collections/$name"
expect 204 DELETE "$url/v1/collections/$name" -H "If-Match: $(etag)"
echo "smoke: $url works"
