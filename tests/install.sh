#!/usr/bin/env bash
# Installs what the tests need and is not there yet: Debian packages by apt-get, npm packages into tests/*/node_modules.
#
#   tests/install.sh [test] [fuzz] [cross]
#
# Nothing is printed when nothing is missing. Packages are installed without a question for root, with FLASHCHAT_YES=1,
# and in CI (CI=true); anybody else is asked once (Y installs, everything else does not; the end of the input does not).
# On other systems the missing things are named, and tests that need them say SKIP.
set -u
cd "$(dirname "$0")/.." || exit 1

has() { command -v "$1" >/dev/null 2>&1; }
# shellcheck disable=SC2317 # need() calls it
compiles() { # headers, linker flags, compiler
    local dir rc
    dir=$(mktemp -d) || return 1
    { for h in $1; do echo "#include <$h>"; done && echo 'int main(void) { return 0; }'; } >"$dir/t.c"
    # shellcheck disable=SC2086 # flags are words
    "${3:-gcc}" -o "$dir/t" "$dir/t.c" $2 >/dev/null 2>&1
    rc=$?
    rm -rf "$dir"
    return "$rc"
}

missing=()
need() { # package, command that succeeds when it works
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

for group in "${@:-test}"; do
    case $group in
    test)
        need gcc has gcc
        need libc6-dev compiles stdio.h ""
        need make has make
        need pkg-config has pkg-config
        for lib in jansson=libjansson-dev libpcre2-8=libpcre2-dev libutf8proc=libutf8proc-dev libxxhash=libxxhash-dev \
            libzstd=libzstd-dev libmicrohttpd=libmicrohttpd-dev libcurl=libcurl4-openssl-dev libcrypto=libssl-dev \
            md4c=libmd4c-dev libedit=libedit-dev liburing=liburing-dev; do
            need "${lib#*=}" pkg-config --exists "${lib%=*}"
        done
        need libcmocka-dev compiles "stdarg.h stddef.h setjmp.h stdint.h cmocka.h" -lcmocka
        need xz-utils has xz
        need python3 has python3
        need python3-jinja2 python3 -c 'import jinja2'
        need python3-numpy /usr/bin/python3 -c "import numpy"
        need nodejs has node
        need npm has npm
        need curl has curl
        need tmux has tmux
        need shellcheck has shellcheck
        need dash has dash
        need clang-format has clang-format
        # The Metal driver against a Metal of our own (tests/metal).
        need clang has clang
        need gobjc compiles "objc/objc.h" ""
        need libgnustep-base-dev test -f /usr/include/GNUstep/Foundation/Foundation.h
        ;;
    fuzz)
        need clang has clang
        need libclang-rt-dev compiles "stdio.h" -fsanitize=address,undefined clang
        need llvm has llvm-symbolizer
        ;;
    cross)
        need gcc-aarch64-linux-gnu has aarch64-linux-gnu-gcc
        need libc6-dev-arm64-cross compiles stdio.h "" aarch64-linux-gnu-gcc
        need qemu-user has qemu-aarch64
        ;;
    *)
        echo "tests/install.sh: unknown group $group (test, fuzz, cross)" >&2
        exit 2
        ;;
    esac
done

install_packages() {
    local sudo=() log=build/test-install.log
    if ! has apt-get; then
        echo "Missing for the tests (Debian names): ${missing[*]}. Without them some tests say SKIP or cannot be built."
        return 0
    fi
    if [ "$(id -u)" != 0 ]; then
        if ! has sudo; then
            echo "Missing for the tests: ${missing[*]}. As root: apt-get install ${missing[*]}" >&2
            return 1
        fi
        sudo=(sudo)
        if [ "${FLASHCHAT_YES:-}" != 1 ] && [ "${CI:-}" != true ]; then
            echo "The tests need packages that are missing: ${missing[*]}"
            read -r -p "  Y  install them with sudo apt-get      x  cancel : " answer || answer=x
            case $answer in Y | y) ;; *) echo "User cancelled: nothing was installed." && return 1 ;; esac
        fi
    fi
    mkdir -p build
    echo "installing for the tests: ${missing[*]}"
    {
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 update
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y \
            --no-install-recommends "${missing[@]}"
    } >$log 2>&1 </dev/null || {
        tail -n 15 $log >&2
        echo "could not install ${missing[*]} (whole log: $log)" >&2
        return 1
    }
}
if [ ${#missing[@]} != 0 ]; then install_packages || exit 1; fi

# The folder of a package.json gets its node_modules; again when the package.json is younger. Without a network the
# tests in that folder say SKIP.
for json in tests/*/package.json; do
    if [ ! -f "$json" ] || ! has npm; then continue; fi
    dir=$(dirname "$json")
    [ "$dir/node_modules/.installed" -nt "$json" ] && continue
    echo "installing npm packages in $dir"
    if (cd "$dir" && npm install --no-audit --no-fund --no-save --loglevel=error) >"${TMPDIR:-/tmp}/npm-$$.log" 2>&1; then
        touch "$dir/node_modules/.installed"
    else
        tail -n 5 "${TMPDIR:-/tmp}/npm-$$.log"
        echo "the npm packages of $dir could not be installed: its tests will say SKIP"
    fi
    rm -f "${TMPDIR:-/tmp}/npm-$$.log"
done
exit 0
