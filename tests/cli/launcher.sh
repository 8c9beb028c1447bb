#!/usr/bin/env bash
# The launcher, in copies of a small tree whose "compiler", "make" and package system are scripts: what it asks, what it
# installs, when it builds, and that the program gets the caller's folder, arguments and input unchanged. Nothing is
# installed on this machine.
set -u
cd "$(dirname "$0")/../.." || exit 1
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
home=$top/tree tools=$top/tools fake=$top/fake

ok() { # name, condition's exit code
    if [ "$2" = 0 ]; then echo "PASS $1"; else echo "FAIL $1" && sed 's/^/     /' "$top/out" "$top/err" 2>/dev/null; fi
}

# A machine: $tools has what every Debian system has, $fake what this one has besides. Packages "are" files in
# $top/installed; fake gcc, make and pkg-config appear with them.
new_machine() { # packages that are installed already
    rm -rf "$home" "$fake" "$top/installed" "$top/apt.calls"
    mkdir -p "$home/src" "$home/apps" "$home/include" "$fake" "$top/installed" "$tools"
    cp flashchat "$home/flashchat"
    echo 'int x;' >"$home/src/x.c"
    touch "$home/Makefile"
    for t in sh awk cat cp dirname find grep head id ln mkdir mktemp mv printf readlink rm sed sort tail touch tr wc env uname \
        getconf flock rmdir; do
        ln -sf "$(command -v $t)" "$tools/$t"
    done
    cat >"$fake/dpkg-query" <<'END'
#!/bin/sh
for p; do :; done
[ -f "$TOP/installed/$p" ] && printf installed
END
    cat >"$fake/apt-cache" <<'END'
#!/bin/sh
for p; do :; done
printf 'Package: %s\nSize: 1234000\nInstalled-Size: 5678\n' "$p"
END
    cat >"$fake/apt-get" <<'END'
#!/bin/sh
echo "$*" >>"$TOP/apt.calls"
case " $* " in *" --assume-no "*)
    echo "0 upgraded, 7 newly installed, 0 to remove"
    echo "Need to get 12.3 MB of archives."
    echo "After this operation, 45.6 MB of additional disk space will be used."
    exit 1 ;;
*" install "*)
    [ -z "${APT_FAILS:-}" ] || { echo "E: no such mirror"; exit 100; }
    for p; do case $p in -* | install) ;; *) sh "$TOP/install-one" "$p" ;; esac; done ;;
esac
END
    cat >"$top/install-one" <<'END'
touch "$TOP/installed/$1"
case $1 in
gcc | make | pkg-config) cp "$TOP/programs/$1" "$TOP/fake/$1" ;;
esac
END
    mkdir -p "$top/programs"
    cat >"$top/programs/gcc" <<'END'
#!/bin/sh
[ -f "$TOP/installed/libc6-dev" ] || exit 1
END
    cat >"$top/programs/pkg-config" <<'END'
#!/bin/sh
case "$*" in
--version) echo 1 ;;
*jansson) [ -f "$TOP/installed/libjansson-dev" ] ;;
*libpcre2-8) [ -f "$TOP/installed/libpcre2-dev" ] ;;
*libcurl) [ -f "$TOP/installed/libcurl4-openssl-dev" ] ;;
*libcrypto) [ -f "$TOP/installed/libssl-dev" ] ;;
*) [ -f "$TOP/installed/$(echo "${2}" | sed 's/^lib//;s/^/lib/')-dev" ] ;;
esac
END
    cat >"$top/programs/make" <<'END'
#!/bin/sh
case "$*" in --version) echo "GNU Make 4.3"; exit ;; esac
echo "$*" >>"$TOP/make.calls"
echo "compiling x"
[ -z "${MAKE_FAILS:-}" ] || { echo "src/x.c:1: error: it broke"; exit 2; }
[ "$1" = -C ] && cp "$TOP/program" "$2/build/flashchat"
END
    cat >"$top/program" <<'END'
#!/bin/sh
[ "$*" = --version ] && exit 0
pwd
echo "home=$FLASHCHAT_HOME"
for a; do printf '[%s]' "$a"; done
echo
[ "$*" = "read -" ] && cat
exit 7
END
    chmod +x "$fake"/* "$top/programs"/* "$top/program"
    rm -f "$top/make.calls"
    export TOP=$top
    for p in "$@"; do sh "$top/install-one" "$p"; done
}
# Every package of the launcher's own list.
everything=$(sed -n '/^needs() {/,/^END$/p' flashchat | awk 'NF > 4 { print $2 }' | tr '\n' ' ')

launch() { # arguments of flashchat; standard input is the caller's
    env -u FLASHCHAT_YES -u CC PATH="$fake:$tools" "${with[@]}" "${command:-$home/flashchat}" "$@" >"$top/out" 2>"$top/err"
}
with=(LC_ALL=C)
built() { [ -x "$home/build/flashchat" ]; }
calls() { if [ -f "$1" ]; then wc -l <"$1"; else echo 0; fi; }
installs() { if [ -f "$top/apt.calls" ]; then grep -c '^.*install -y' "$top/apt.calls"; else echo 0; fi; }

# shellcheck disable=SC2086 # a list
new_machine $everything
mkdir -p "$top/caller's folder"
(cd "$top/caller's folder" && launch prompt "two words" "" '*' $'line\nbreak' --yes </dev/null)
rc=$?
[ $rc = 7 ] && [ "$(sed -n 1p "$top/out")" = "$top/caller's folder" ] && [ "$(sed -n 2p "$top/out")" = "home=$home" ] &&
    [ "$(sed -n '3,$p' "$top/out")" = $'[prompt][two words][][*][line\nbreak][--yes]' ] &&
    [ "$(cat "$top/err")" = "flashchat: building (log: $home/build/build.log) ..." ]
ok "first start builds without a question; folder, arguments and exit code are kept" $?
launch x </dev/null
[ "$(calls "$top/make.calls")" = 1 ] && [ ! -s "$top/err" ]
ok "second start is silent and builds nothing" $?
echo "my text" | launch read -
[ "$(tail -n 1 "$top/out")" = "my text" ]
ok "standard input reaches the program" $?
touch -d '+1 minute' "$home/src/x.c"
launch x </dev/null
[ "$(calls "$top/make.calls")" = 2 ]
ok "a newer source is built" $?
touch -d '-1 minute' "$home/src/x.c"
launch x </dev/null # the stamp of the last build is younger now
printf '#!/bin/sh\nexit 127\n' >"$home/build/flashchat"
launch x </dev/null
[ $? = 7 ] && grep -q -- -B "$top/make.calls"
ok "a program that does not start here is built again" $?
cp "$top/program" "$home/build/flashchat"
rm -f "$home/build/.built" "$top/make.calls"
chmod a-w "$home/build"
launch x </dev/null
[ $? = 7 ] && [ "$(calls "$top/make.calls")" = 0 ]
ok "a program built by hand is used, in a folder that cannot be written" $?
chmod u+w "$home/build"
ln -sf "$home/flashchat" "$top/link" && ln -sf link "$top/link2"
(cd / && command=$top/link2 launch x </dev/null)
[ "$(sed -n 2p "$top/out")" = "home=$home" ]
ok "started through links it finds its folder" $?

# shellcheck disable=SC2086
new_machine $everything
with=(MAKE_FAILS=1)
launch x </dev/null
rc=$?
[ $rc = 1 ] && ! built && grep -q "it broke" "$top/err" && grep -q "build/build.log" "$top/err" && [ ! -s "$top/out" ]
ok "a failed build shows the end of its log" $?
with=(LC_ALL=C)
launch x </dev/null
[ $? = 7 ]
ok "after a failed build the next start builds" $?

new_machine libc6-dev make
for answer in x X n ""; do
    printf '%s' "${answer:+$answer
}" | launch prompt hi
    rc=$?
    [ $rc = 1 ] && [ "$(installs)" = 0 ] && ! built && [ ! -s "$top/out" ] && grep -q "User cancelled" "$top/err" &&
        grep -q "Run it again" "$top/err"
    ok "answer '${answer:-end of input}' cancels, nothing is done, and it says so" $?
done
printf '\n\nwhat\n' | launch prompt hi
[ $? = 1 ] && [ "$(installs)" = 0 ] && [ "$(grep -c 'type Y or x' "$top/err")" = 3 ]
ok "an empty or odd answer is no consent" $?
printf 'x\n' | launch prompt hi
grep -Eq '^  gcc +1\.2 MB +5\.7 MB +C compiler' "$top/err" &&
    grep -q "7 packages, 12.3 MB to download, 45.6 MB on disk" "$top/err" &&
    ! grep -q '^  make ' "$top/err" && grep -q "apt-get install" "$top/err" &&
    [ "$(grep -c 'Y  install' "$top/err")" = 1 ]
ok "one screen lists what is missing, with sizes, and the command" $?
with=(LC_ALL=C "$(command -v setsid)" -w) # no terminal to ask
printf 'Y\n' | launch prompt -
rc=$?
with=(LC_ALL=C)
[ $rc = 1 ] && [ "$(installs)" = 0 ]
ok "text for the model on standard input is not taken for consent" $?
printf 'Y\n' | launch prompt hi
[ $? = 7 ] && [ "$(installs)" = 1 ] && built && [ -f "$top/installed/libpcre2-dev" ] && [ -f "$top/installed/liburing-dev" ]
ok "Y installs, builds and starts" $?

new_machine
launch --yes prompt hi </dev/null
[ $? = 7 ] && [ "$(installs)" = 1 ] && grep -q '^\[prompt\]\[hi\]$' "$top/out" && ! grep -q 'Y  install' "$top/err"
ok "--yes asks nothing and is not passed on" $?
new_machine
launch --model x --yes prompt hi </dev/null
[ $? != 7 ] && [ "$(installs)" = 0 ]
ok "--yes behind the first word is not ours" $?
with=(FLASHCHAT_YES=1)
launch --raw prompt hi </dev/null
[ $? = 7 ] && [ "$(installs)" = 1 ] && grep -q '^\[--raw\]\[prompt\]\[hi\]$' "$top/out"
ok "FLASHCHAT_YES=1 asks nothing" $?
new_machine
with=(APT_FAILS=1)
launch --yes prompt hi </dev/null
[ $? = 1 ] && ! built && grep -q "no such mirror" "$top/err" && grep -q "By hand: " "$top/err"
ok "a failed installation says why and what to type" $?
with=(LC_ALL=C)

# Not root: `id -u` says 1000; sudo is there or not.
new_machine libc6-dev make
printf '#!/bin/sh\necho 1000\n' >"$fake/id" && chmod +x "$fake/id"
launch --yes prompt hi </dev/null
[ $? = 1 ] && [ "$(installs)" = 0 ] && grep -q "no sudo here. As root: .*apt-get install.* gcc" "$top/err"
ok "without root and sudo it names the command" $?
printf '#!/bin/sh\necho "$1" >>"$TOP/sudo.calls"\nexec "$@"\n' >"$fake/sudo" && chmod +x "$fake/sudo"
printf 'Y\n' | launch prompt hi
[ $? = 7 ] && [ -s "$top/sudo.calls" ] && grep -q "command: sudo apt-get" "$top/err"
ok "without root it uses sudo" $?

new_machine make
rm "$fake/apt-get" "$fake/dpkg-query"
launch --yes prompt hi </dev/null
[ $? = 1 ] && grep -q "has no apt-get" "$top/err" && grep -q "jansson" "$top/err"
ok "another Linux is told what to install" $?
# macOS: the Command Line Tools are there when $top/tools.done is; brew "installs" the Debian names' things.
printf '#!/bin/sh\necho Darwin\n' >"$fake/uname" && chmod +x "$fake/uname"
cat >"$fake/xcode-select" <<'END'
#!/bin/sh
echo "$*" >>"$TOP/xcode.calls"
[ "$1" = -p ] && [ -f "$TOP/tools.done" ]
END
chmod +x "$fake/xcode-select"
rm -f "$top/xcode.calls" "$top/tools.done"
printf 'x\n' | launch prompt hi
[ $? = 1 ] && grep -q "has not been run on macOS" "$top/err" && grep -q "Command Line Tools" "$top/err" &&
    ! grep -q -- --install "$top/xcode.calls"
ok "macOS without tools: they are asked for, x does nothing" $?
printf 'Y\n' | launch prompt hi
[ $? = 1 ] && grep -q -- --install "$top/xcode.calls" && grep -q "run this again" "$top/err" && ! built
ok "macOS without tools: Y opens Apple's installer" $?
touch "$top/tools.done"
launch --yes prompt hi </dev/null
[ $? = 1 ] && grep -q "Homebrew.*jansson.*brew.sh" "$top/err"
ok "macOS without Homebrew is told about it" $?
cat >"$fake/brew" <<'END'
#!/bin/sh
[ "$1" = --prefix ] && echo "$TOP/brew" && exit
echo "$*" >>"$TOP/brew.calls"
for p in gcc libc6-dev pkg-config libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libzstd-dev libmicrohttpd-dev \
    libcurl4-openssl-dev libssl-dev libmd4c-dev libedit-dev; do sh "$TOP/install-one" $p; done
END
chmod +x "$fake/brew"
rm -f "$top/brew.calls"
printf 'x\n' | launch prompt hi
[ $? = 1 ] && [ ! -f "$top/brew.calls" ] && grep -q "^  jansson .*JSON" "$top/err" && grep -q "User cancelled" "$top/err"
ok "macOS: one screen lists the packages of Homebrew, x does nothing" $?
sh "$top/install-one" gcc && sh "$top/install-one" libc6-dev
printf 'Y\n' | launch prompt hi
[ $? = 7 ] && grep -q "^install .*openssl@3" "$top/brew.calls" && ! grep -q "install.*make" "$top/brew.calls" && built
ok "macOS: Y installs, builds and starts" $?

# shellcheck disable=SC2086
new_machine ${everything% *}
launch x </dev/null
[ $? = 7 ] && [ ! -f "$top/apt.calls" ]
ok "nobody is asked because of an optional package alone" $?

if command -v dash >/dev/null; then
    dash -n flashchat
    ok "dash reads the launcher" $?
else
    echo "SKIP dash reads the launcher: no dash"
fi
