#!/bin/sh
# Writes a C file whose metal_source() is entry.metal with everything under gpu/kernels that it includes, each file once:
# what newLibraryWithSource is given. Other includes stay as they are: they belong to the dialects that Metal skips.
#
#   src/gpu/metal/flatten.sh [--text] > FILE      --text: the Metal text itself
set -eu
cd "$(dirname "$0")/../.."
seen=' '

flatten() {
    case $seen in *" $1 "*) return ;; esac
    seen="$seen$1 "
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        '#include "gpu/kernels/'*)
            name=${line#*\"}
            flatten "${name%%\"*}"
            ;;
        *) printf '%s\n' "$line" ;;
        esac
    done <"$1"
}

if [ "${1:-}" = --text ]; then
    flatten gpu/kernels/entry.metal
    exit
fi
echo '/* Made by src/gpu/metal/flatten.sh. */'
echo '#include "gpu/metal/metal.h"'
echo 'const char *metal_source(void) {'
echo '    return'
flatten gpu/kernels/entry.metal | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/        "/' -e 's/$/\\n"/'
echo '        ;'
echo '}'
