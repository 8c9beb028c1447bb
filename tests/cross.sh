#!/usr/bin/env bash
# Builds for aarch64 and runs the unit and golden tests under qemu-user.
#
# The libraries come from the distribution's own arm64 packages, fetched through a private copy of apt's state and
# unpacked into build/sysroot-aarch64: the system's package lists and architectures stay as they are, and no root is needed.
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
triple=aarch64-linux-gnu
sys=$PWD/build/sysroot-aarch64
packages="libjansson4 libjansson-dev libpcre2-8-0 libpcre2-16-0 libpcre2-32-0 libpcre2-posix3 libpcre2-dev libutf8proc2
    libutf8proc-dev libxxhash0 libxxhash-dev libzstd1 libzstd-dev liburing2 liburing-dev libcmocka0 libcmocka-dev
    libmicrohttpd12 libmicrohttpd-dev libcurl4 libcurl4-openssl-dev libssl3 libssl-dev
    libmd4c0 libmd4c-dev libedit2 libedit-dev libbsd0 libtinfo6 libmd0"

skip() {
    echo "SKIP cross-test: $*"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}
[ "$(uname -m)" != aarch64 ] || skip "this machine is aarch64 already: make test"
for tool in $triple-gcc qemu-aarch64 apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || skip "no $tool (tests/install.sh cross)"
done

make_sysroot() {
    local apt=$sys.apt deb
    rm -rf "$sys" "$apt"
    mkdir -p "$sys" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
    # The mirrors that this machine uses already.
    # shellcheck disable=SC2016 # apt-get expands these
    apt-get indextargets --format 'deb $(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        grep -i debian | sort -u >"$apt/sources.list"
    : >"$apt/status"
    local opts=(-q -o Dir::State="$apt" -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status"
        -o Dir::Cache="$apt/cache" -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=-
        -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root -o Acquire::Languages=none)
    apt-get "${opts[@]}" update || return 1
    # shellcheck disable=SC2086 # a list of names
    (cd "$apt/debs" && apt-get "${opts[@]}" download $packages) || return 1
    for deb in "$apt"/debs/*.deb; do dpkg-deb -x "$deb" "$sys" || return 1; done
    echo "$packages" >"$sys/.complete"
    rm -rf "$apt"
}
if [ "$(cat "$sys/.complete" 2>/dev/null)" != "$packages" ]; then
    mkdir -p build
    make_sysroot >build/sysroot-aarch64.log 2>&1 ||
        skip "the arm64 libraries could not be fetched (build/sysroot-aarch64.log)"
fi

lib=$sys/usr/lib/$triple
export PKG_CONFIG_LIBDIR=$lib/pkgconfig:$sys/usr/share/pkgconfig PKG_CONFIG_SYSROOT_DIR=$sys
jobs=(-j"$(getconf _NPROCESSORS_ONLN)")
case ${MAKEFLAGS:-} in *jobserver*) jobs=() ;; esac
make --no-print-directory "${jobs[@]}" BUILD="$BUILD/aarch64" CC=$triple-gcc AR=$triple-ar OPT=conservative \
    CFLAGS="-isystem $sys/usr/include/$triple -isystem $sys/usr/include" \
    LDFLAGS="-L$lib -Wl,-rpath-link,$lib,--as-needed,--allow-shlib-undefined" all tests || exit 1
make -s --no-print-directory goldens BUILD="$BUILD" || exit 1

export RUNNER="qemu-aarch64 -L /usr/$triple -E LD_LIBRARY_PATH=$lib:$sys/lib/$triple"
export BUILD=$BUILD/aarch64 TEST_TIMEOUT=1800 FM_TEST_FAST=1
unit=$(mktemp)
tests/run.sh --unit | tee "$unit"
read -r passed _ failed _ skipped _ < <(tail -n 1 "$unit")
rm -f "$unit"

# The golden checkpoints, computed by emulated NEON.
for dir in "${BUILD%/aarch64}"/golden/*/; do
    [ -x "$BUILD/golden-check" ] || break
    name=golden-$(basename "$dir")
    # shellcheck disable=SC2086 # the emulator and its arguments
    if timeout 600 $RUNNER "$BUILD/golden-check" "$dir" >"$BUILD/$name.log" 2>&1; then
        echo "PASS $name" && passed=$((passed + 1))
    else
        echo "FAIL $name: see $BUILD/$name.log" && failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
