#!/usr/bin/env bash
# Copies the shared libraries that the programs of a folder need into its lib/, but not the C library's own parts: those
# must be the running system's.  usage: portable_libs.sh FOLDER
folder=$1
for program in "$folder"/*; do
    [ -f "$program" ] && [ -x "$program" ] && ldd "$program" 2>/dev/null
done | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|ld-linux[^/]*)\.so' |
    while read -r library; do cp -L "$library" "$folder/lib/"; done
