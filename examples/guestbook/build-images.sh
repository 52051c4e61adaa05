#!/bin/bash
# Puts Debian's own packages into OCI images and pushes them to a registry, without Docker.
#
#   examples/guestbook/build-images.sh REGISTRY        for instance 127.0.0.1:5000, spoken to over plain HTTP
#
# Four images come out: guestbook/frontend:v1 and :v2 (nginx; they differ in one layer), guestbook/backend:v1
# (busybox httpd and redis-cli) and guestbook/redis:v1 (redis-server). All of them share one base layer.
#
# Files of packages that are installed are taken from this machine; what is missing is downloaded with apt-get and
# unpacked into a temporary directory, not installed. Libraries are the ones that ldd names. Root is not needed.
set -euo pipefail
umask 022

die() { echo "build-images: $*" >&2; exit 1; }

[ $# = 1 ] || die "usage: $0 REGISTRY"
registry=$1
packages=(busybox-static nginx nginx-common redis-server redis-tools)
for tool in curl tar gzip sha256sum dpkg-deb ldd; do
    command -v "$tool" >/dev/null || die "$tool is missing"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work"/{debs,missing,blobs}

# --- packages -------------------------------------------------------------------------------------------------------

# Downloads and unpacks what is not installed of our packages and of what they depend on.
fetch_missing() {
    local missing name deb wanted
    wanted=$(for name in "${packages[@]}"; do installed "$name" || echo "$name"; done)
    [ -n "$wanted" ] || return 0
    # shellcheck disable=SC2086  # one word per package
    missing=$(apt-get install --simulate --no-install-recommends $wanted | awk '/^Inst/ {print $2}')
    # shellcheck disable=SC2086
    (cd "$work/debs" && apt-get download --quiet=2 $missing) || die "cannot download: $missing; try apt-get update"
    for deb in "$work"/debs/*.deb; do
        name=$(dpkg-deb --field "$deb" Package)
        mkdir "$work/missing/$name"
        dpkg-deb --extract "$deb" "$work/missing/$name"
    done
}

installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# copy FILE PATH ROOT: puts FILE at PATH below ROOT, where /bin, /sbin, /lib and /lib64 live in /usr, as in Debian.
copy() {
    local path=$2
    case $path in /bin/* | /sbin/* | /lib/* | /lib64/*) path=/usr$path ;; esac
    install -d "$3$(dirname "$path")"
    cp --no-dereference --preserve=mode,links "$1" "$3$path"
}

# package NAME ROOT: the files of a package, without its documentation.
package() {
    local name=$1 root=$2 from='' list path
    if [ -d "$work/missing/$name" ]; then
        from=$work/missing/$name
        list=$(cd "$from" && find . ! -type d -printf '/%P\n')
    else
        list=$(dpkg-query --listfiles "$name")
    fi
    while read -r path; do
        case $path in /usr/share/doc/* | /usr/share/man/* | /usr/share/lintian/* | */systemd/*) continue ;; esac
        if [ -L "$from$path" ] || [ -f "$from$path" ]; then copy "$from$path" "$path" "$root"; fi
    done <<<"$list"
}

# libraries ROOT BASE: what the programs below ROOT need and BASE, the layer below, does not have.
libraries() {
    local root=$1 base=$2 program path search
    search=$(find "$work/missing" -type d -path '*/lib/*-linux-gnu' -printf '%p:')
    find "$root" -type f -perm /111 | while read -r program; do
        LD_LIBRARY_PATH=$search ldd "$program" 2>/dev/null | grep -v 'statically linked' || true
    done | sort -u | while read -r path; do
        case $path in
            *'not found'*) die "library ${path%% *} is missing on this machine" ;;
            *' => /'*) path=${path#*=> } ;;
            /*) ;;
            *) continue ;;
        esac
        path=${path%% *}
        local place=${path#"$work"/missing/}
        [ "$place" = "$path" ] || place=/${place#*/}
        case $place in /usr/*) ;; *) place=/usr$place ;; esac
        [ -e "$base$place" ] || { install -d "$root$(dirname "$place")"; cp --dereference "$path" "$root$place"; }
    done
}

# --- images ---------------------------------------------------------------------------------------------------------

digest() { sha256sum "$1" | cut -d' ' -f1; }

# layer NAME: packs $work/NAME; leaves its media digest in $work/NAME.digest and its diff id in $work/NAME.diff.
layer() {
    local name=$1
    tar --create --file="$work/$name.tar" --directory="$work/$name" --sort=name --mtime=@0 \
        --owner=0 --group=0 --numeric-owner --format=gnu .
    gzip --no-name --fast --keep "$work/$name.tar"
    digest "$work/$name.tar" >"$work/$name.diff"
    digest "$work/$name.tar.gz" >"$work/$name.digest"
    mv "$work/$name.tar.gz" "$work/blobs/$(cat "$work/$name.digest")"
    rm "$work/$name.tar"
}

# push_blob REPOSITORY DIGEST: unless the registry has it.
push_blob() {
    local base=http://$registry/v2/$1 location
    ! curl --silent --fail --head --output /dev/null "$base/blobs/sha256:$2" || return 0
    location=$(curl --silent --show-error --fail --request POST --header 'Content-Length: 0' --output /dev/null \
        --dump-header - "$base/blobs/uploads/" | tr -d '\r' | awk 'tolower($1) == "location:" {print $2}')
    case $location in /*) location=http://$registry$location ;; esac
    case $location in *\?*) location="$location&" ;; *) location="$location?" ;; esac
    curl --silent --show-error --fail --request PUT --header 'Content-Type: application/octet-stream' \
        --data-binary "@$work/blobs/$2" --output /dev/null "${location}digest=sha256:$2"
}

descriptor() { # TYPE DIGEST
    printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%d}' \
        "$1" "$2" "$(stat --format=%s "$work/blobs/$2")"
}

# image NAME:TAG CONFIG LAYER...: CONFIG is the "config" object of the OCI image configuration.
image() {
    local repository=guestbook/${1%%:*} tag=${1##*:} config=$2 name diffs='' layers='' blob
    shift 2
    for name in "$@"; do
        diffs+="${diffs:+,}\"sha256:$(cat "$work/$name.diff")\""
        layers+="${layers:+,}$(descriptor layer.v1.tar+gzip "$(cat "$work/$name.digest")")"
        push_blob "$repository" "$(cat "$work/$name.digest")"
    done
    printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":%s,"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$(dpkg --print-architecture)" "$config" "$diffs" >"$work/config"
    blob=$(digest "$work/config")
    mv "$work/config" "$work/blobs/$blob"
    push_blob "$repository" "$blob"
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
        "$(descriptor config.v1+json "$blob")" "$layers" >"$work/manifest"
    curl --silent --show-error --fail --request PUT --output /dev/null --data-binary "@$work/manifest" \
        --header 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
        "http://$registry/v2/$repository/manifests/$tag"
    echo "pushed $registry/$repository:$tag"
}

# --- contents -------------------------------------------------------------------------------------------------------

curl --silent --fail --output /dev/null "http://$registry/v2/" || die "no registry answers at http://$registry/v2/"
fetch_missing

# The base: libc, the loader, and busybox as a shell.
base=$work/base
mkdir -p "$base"/{etc,usr/bin,usr/sbin,usr/lib,usr/lib64,tmp,run,var/log} && chmod 1777 "$base/tmp"
for link in bin sbin lib lib64; do ln -s "usr/$link" "$base/$link"; done
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$base/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$base/etc/group"
printf 'hosts: files dns\n' >"$base/etc/nsswitch.conf"
package busybox-static "$base"
for applet in sh cat head ls ps sleep wget nslookup; do ln -s busybox "$base/usr/bin/$applet"; done
ldd "$(command -v cat)" | awk '/=> \//{print $3} /^[[:space:]]*\//{print $1}' |
    while read -r file; do cp --dereference --parents "$(realpath --no-symlinks "/usr${file#/usr}")" "$base"; done
layer base

mkdir "$work/nginx"
package nginx "$work/nginx"
package nginx-common "$work/nginx"
libraries "$work/nginx" "$base"
layer nginx

for version in v1 v2; do
    install -D --mode=0644 /dev/null "$work/page-$version/srv/version"
    echo "guestbook $version" >"$work/page-$version/srv/version"
    layer "page-$version"
done

mkdir "$work/redis"
package redis-tools "$work/redis"
package redis-server "$work/redis"
libraries "$work/redis" "$base"
layer redis

nobody='"User":"65534:65534","Env":["PATH=/usr/sbin:/usr/bin"]'
frontend="{$nobody,\"WorkingDir\":\"/\",\"Cmd\":[\"/usr/sbin/nginx\",\"-g\",\"daemon off;\"]}"
image frontend:v1 "$frontend" base nginx page-v1
image frontend:v2 "$frontend" base nginx page-v2
image backend:v1 "{$nobody,\"Cmd\":[\"/bin/busybox\",\"httpd\",\"-f\",\"-v\",\"-p\",\"8080\",\"-h\",\"/srv\"]}" base redis
image redis:v1 "{$nobody,\"WorkingDir\":\"/tmp\",\"Entrypoint\":[\"/usr/bin/redis-server\"]}" base redis
