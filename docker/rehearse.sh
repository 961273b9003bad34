#!/usr/bin/env bash
# Build the server and client images and rehearse a federation from them: a coordinator and three phantom
# hospitals with TLS and registered keys. Ends with the study's table and its exit code.
#
#   docker/rehearse.sh images     build only
#   docker/rehearse.sh            build, then rehearse
#
# With a Docker engine: docker build and docker/compose.yaml. Without one, as root: buildah, whose containers then
# share this machine's network, on a base made by debootstrap that stands in for the registry's python image.
# BASE=image overrules the base, STUDY=name the study (of the sites below), PORT=n the coordinator's port
# (buildah only).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STUDY=${STUDY:-phantom_smoke}
PORT=${PORT:-8000}
SITES=(north south west)
STATUS=0

say() { printf '\n== %s\n' "$*"; }
ended() { say "ended with $1 after $SECONDS s"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# ---------------------------------------------------------------- with a Docker engine

docker_images() {
    for part in server client; do
        docker build ${BASE:+--build-arg "BASE=$BASE"} -f "docker/$part.Dockerfile" -t "semc-$part" .
    done
    docker image ls --filter 'reference=semc-*'
}

compose() { docker compose -f docker/compose.yaml "$@"; }

docker_end() {
    local status=$?
    compose logs --no-color > runs/rehearsal/compose.log 2>&1 || true
    compose --profile study down --volumes
    ended "$status"
}

docker_rehearsal() {
    export STUDY
    mkdir -p runs/rehearsal
    trap docker_end EXIT
    compose run --rm study || STATUS=$?  # starts what it depends on and waits until that is healthy
}

# ---------------------------------------------------------------- without one: buildah

LOCAL_BASE=localhost/semc-base:bookworm
WORK=$PWD/runs/rehearsal
SCRATCH=

# The variable alone is not heeded by every version of buildah.
buildah() { command buildah --storage-driver "$STORAGE_DRIVER" "$@"; }

buildah_ready() {
    [ "$(id -u)" = 0 ] || fail "no Docker engine answers, and buildah's chroot needs root. Fix: start Docker, or use sudo"
    local tool fix="Fix: start Docker, or apt-get install buildah debootstrap"
    for tool in buildah debootstrap; do
        command -v "$tool" > /dev/null || fail "no Docker engine answers and $tool is missing. $fix"
    done
    SCRATCH=$(mktemp -d)
    trap buildah_end EXIT
    export BUILDAH_ISOLATION=chroot
    STORAGE_DRIVER=${STORAGE_DRIVER:-$(storage_driver)}
}

# vfs works everywhere but copies every layer whole, gigabytes each; overlay wherever this machine may mount it.
storage_driver() {
    mkdir -p "$SCRATCH"/overlay/{lower,upper,work,merged}
    if mount -t overlay overlay -o "lowerdir=$SCRATCH/overlay/lower,upperdir=$SCRATCH/overlay/upper,workdir=$SCRATCH/overlay/work" \
        "$SCRATCH/overlay/merged" 2> /dev/null; then
        umount "$SCRATCH/overlay/merged"
        echo overlay
    else
        echo vfs
    fi
}

buildah_base() {
    if [ -n "${BASE:-}" ]; then return; fi
    BASE=$LOCAL_BASE
    if buildah inspect --type image "$BASE" > /dev/null 2>&1; then return; fi
    say "base image: Debian bookworm with its Python 3.11"
    mkdir "$SCRATCH/context"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$SCRATCH/root" \
        > "$SCRATCH/debootstrap.log" 2>&1 || { tail -n 20 "$SCRATCH/debootstrap.log" >&2; fail "debootstrap failed"; }
    rm -rf "$SCRATCH"/root/var/cache/apt/archives/*.deb "$SCRATCH"/root/var/lib/apt/lists/*
    ln -sf python3 "$SCRATCH/root/usr/bin/python"
    tar -C "$SCRATCH/root" -cf "$SCRATCH/context/base.tar" .
    printf 'FROM scratch\nADD base.tar /\nCMD ["python3"]\n' > "$SCRATCH/context/Dockerfile"
    buildah bud --format docker -t "$BASE" "$SCRATCH/context"
    rm -rf "$SCRATCH/root" "$SCRATCH/context"
}

# This machine's certificates and pip settings are lent to the build and never enter an image.
build_mounts() {
    local bundle=/etc/ssl/certs/ca-certificates.crt
    [ -f "$bundle" ] || return 0
    printf -- '--volume=%s:%s:ro\n' "$bundle" "$bundle"
    if [ -f /etc/pip.conf ]; then
        cp /etc/pip.conf "$SCRATCH/pip.conf"
    else
        printf '[global]\ncert = %s\n' "$bundle" > "$SCRATCH/pip.conf"
    fi
    printf -- '--volume=%s:/etc/pip.conf:ro\n' "$SCRATCH/pip.conf"
}

buildah_images() {
    local part try mounts
    mapfile -t mounts < <(build_mounts)
    for part in server client; do
        say "image semc-$part ($STORAGE_DRIVER)"
        for try in 1 2 3; do
            # A step now and then fails with "sealing memfd ... busy"; finished layers are kept, so once more.
            if buildah bud --layers --format docker --build-arg "BASE=$BASE" "${mounts[@]}" \
                -f "docker/$part.Dockerfile" -t "localhost/semc-$part" .; then break; fi
            [ "$try" -lt 3 ] || fail "the image semc-$part was not built"
        done
    done
    buildah images | grep -E 'REPOSITORY|semc-'
}

# container NAME IMAGE VOLUME...: a working container of its own; with vfs, which copies the image for each, one
# for all of an image's programs. What they write lies on their own volumes either way.
container() {
    if [ "$STORAGE_DRIVER" != vfs ]; then
        CONTAINER[$1]=$(buildah from "localhost/semc-$2")
    else
        [ -n "${SHARED[$2]:-}" ] || SHARED[$2]=$(buildah from "localhost/semc-$2")
        CONTAINER[$1]=${SHARED[$2]}
    fi
    VOLUMES[$1]=$(printf -- '--volume=%s\n' "${@:3}")
}

# inside NAME COMMAND...: run a command in a container, as the images' own user.
inside() {
    local volumes
    mapfile -t volumes <<< "${VOLUMES[$1]}"
    buildah run --user 10001:10001 --env "SEMC_HEALTH_PORT=${HEALTH[$1]:-0}" "${volumes[@]}" \
        "${CONTAINER[$1]}" -- "${@:2}"
}

start() {
    inside "$@" > "$WORK/logs/$1.log" 2>&1 &
    PIDS[$1]=$!
}

# The image's own HEALTHCHECK, asked inside the container until it succeeds.
wait_healthy() {
    local probe tries=60
    mapfile -d '' -t probe < <(buildah inspect --type image "localhost/semc-$2" | python3 -c \
        'import json, sys; print(*json.load(sys.stdin)["Docker"]["config"]["Healthcheck"]["Test"][1:], sep="\0", end="\0")')
    until inside "$1" "${probe[@]}" > /dev/null 2>&1; do
        kill -0 "${PIDS[$1]}" 2> /dev/null || { tail -n 5 "$WORK/logs/$1.log" >&2; fail "$1 ended while starting"; }
        ((tries--)) || fail "$1 is not healthy after a minute (see runs/rehearsal/logs)"
        sleep 1
    done
    echo "$1 is healthy"
}

# buildah's chroot does not pass SIGTERM on: signal the program itself, below this script's and buildah's processes.
stop() {
    local pid=${PIDS[$1]} status=0
    while [[ $(ps -o comm= -p "$pid") == @(bash|*buildah*) ]]; do pid=$(pgrep -o -P "$pid") || break; done
    [ -z "$pid" ] || kill -TERM "$pid" 2> /dev/null || true
    wait "${PIDS[$1]}" || status=$?
    unset "PIDS[$1]"
    echo "$1 ended with $status"
    [ "$status" = 0 ] || [ "$STATUS" != 0 ] || STATUS=$status
}

buildah_end() {
    local name status=$?
    for name in "${!PIDS[@]}"; do stop "$name" || true; done
    for name in $(printf '%s\n' "${CONTAINER[@]}" | sort -u); do buildah rm "$name" > /dev/null || true; done
    rm -rf "$SCRATCH"
    ended "$status"
}

buildah_rehearsal() {
    local name number=0 step=10 prepare
    rm -rf "$WORK"
    mkdir -p "$WORK/logs" "$WORK/coordinator"
    HEALTH[coordinator]=$((PORT + 1))
    container coordinator server "$WORK/coordinator:/var/lib/semc"
    # Not at /var/lib/semc: with this many volumes buildah 1.28 lets the image's own VOLUME win there.
    prepare=("$WORK/coordinator:/coordinator" "$PWD/docker/prepare.py:/prepare.py:ro")
    for name in "${SITES[@]}"; do
        mkdir -p "$WORK/$name"
        container "$name" client "$WORK/$name:/var/lib/semc"
        prepare+=("$WORK/$name:/hospitals/$name")
        HEALTH[$name]=$((9095 + number * step))
        ((number += 1))
    done
    chown -R 10001:10001 "$WORK"/*
    container prepare client "${prepare[@]}"

    say "coordinator"
    start coordinator semc-server up --address "127.0.0.1:$PORT"
    wait_healthy coordinator server
    say "hospitals, their keys, their enrolment"
    inside prepare env SEMC_SERVER_HOME=/coordinator \
        python -P /prepare.py "$STUDY" "127.0.0.1:$PORT" /hospitals "$step"
    for name in "${SITES[@]}"; do start "$name" semc-client --site /var/lib/semc/site.yaml join; done
    for name in "${SITES[@]}"; do wait_healthy "$name" client; done
    say "study $STUDY"
    inside coordinator semc-server run "$STUDY" || STATUS=$?
    say "status, then SIGTERM to every container"
    inside coordinator semc-server status
    for name in "${SITES[@]}" coordinator; do stop "$name"; done
}

# ---------------------------------------------------------------- main

declare -A CONTAINER=() SHARED=() VOLUMES=() HEALTH=() PIDS=()
if docker info > /dev/null 2>&1; then
    docker_images
    [ "${1:-}" = images ] || docker_rehearsal
else
    buildah_ready
    buildah_base
    buildah_images
    [ "${1:-}" = images ] || buildah_rehearsal
fi
exit "$STATUS"
