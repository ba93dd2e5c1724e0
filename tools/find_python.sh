#!/bin/sh
# Prints the path of a Python that works, or says on standard error why there is none.
# Usage: tools/find_python.sh [VERSION…]   (default: 3.12 3.13 3.11, in that order of preference)
# A name on the path may be a shim that fails (pyenv, Windows store): each one is run before it is believed.
set -u
[ $# -gt 0 ] || set -- 3.12 3.13 3.11

works() { # works PYTHON VERSION: runs, is of that version, and can make a virtual environment
    "$1" -c "
import sys, ctypes, ensurepip, ssl, venv, zlib
sys.exit('%d.%d' % sys.version_info[:2] != '$2')" >/dev/null 2>&1 </dev/null
}

found() {
    "$1" -c 'import sys; print(sys.executable)' </dev/null
    exit 0
}

pyenv_root=$(pyenv root 2>/dev/null) || pyenv_root=${PYENV_ROOT:-${HOME:-}/.pyenv}

if [ -n "${PYTHON:-}" ]; then
    for version in "$@"; do
        if works "$PYTHON" "$version"; then found "$PYTHON"; fi
    done
    echo "PYTHON=$PYTHON does not run, is none of Python $*, or lacks venv. Remedy: name another, or unset it." >&2
    exit 1
fi
for version in "$@"; do
    for candidate in "python$version" python3 python "$pyenv_root/versions/$version".*/bin/python; do
        if works "$candidate" "$version"; then found "$candidate"; fi
    done
done
echo "No working Python of $* with venv and pip found. Remedy: install one (python.org, or 'uv python install $1')," \
    "or name it: make PYTHON=/path/to/python" >&2
exit 1
