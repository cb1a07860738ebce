#!/usr/bin/env bash
# stand-in.sh FOLDER [PYTHON]: builds a replacement for the official Python image without a registry:
# Debian packages and this machine's Python 3.12, under the image name in the Dockerfile. Downloads the
# wheels of the lock files, for a build without a package index.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
build=(buildah --root "$folder/store" --runroot "$folder/run" --storage-driver overlay)

python=${2:-python3.12}
prefix=$("$python" -c 'import sys; print(sys.base_prefix if sys.version_info[:2] == (3, 12) else "")' 2>/dev/null || true)
case $prefix in
    "" | /usr | /usr/local)
        echo "a Python 3.12 in a folder of its own is needed, as pyenv makes it: make PYTHON312=..." >&2
        exit 1
        ;;
esac

if ! "${build[@]}" inspect --type image docker.io/library/python:3.12-slim >/dev/null 2>&1; then
    # shellcheck source=/dev/null
    . /etc/os-release
    mirror=$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources)
    rm -rf "$folder/rootfs"
    debootstrap --variant=minbase --include=ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,tzdata,zlib1g \
        "$VERSION_CODENAME" "$folder/rootfs" "$mirror" >"$folder/debootstrap.log" 2>&1
    rm -rf "$folder"/rootfs/var/cache/apt/archives/*.deb "$folder"/rootfs/var/lib/apt/lists/*
    mkdir -p "$folder/rootfs/usr/local"
    cp -a "$prefix/." "$folder/rootfs/usr/local/"
    rm -rf "$folder"/rootfs/usr/local/lib/python3.12/{test,site-packages/*}
    chroot "$folder/rootfs" ldconfig
    chroot "$folder/rootfs" /usr/local/bin/python3.12 -m ensurepip >/dev/null 2>&1
    ln -sf pip3 "$folder/rootfs/usr/local/bin/pip"
    container=$("${build[@]}" from scratch)
    "${build[@]}" add --quiet "$container" "$folder/rootfs" /
    "${build[@]}" config --cmd python3 --env LANG=C.UTF-8 \
        --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    "${build[@]}" commit --quiet --rm "$container" docker.io/library/python:3.12-slim
    rm -rf "$folder/rootfs"
fi

for lock in requirements.lock requirements-build.lock; do
    "$python" -m pip --disable-pip-version-check download --quiet --require-hashes \
        --dest "$folder/wheels" --requirement "$repository/$lock"
done
printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$folder/pip.conf"
