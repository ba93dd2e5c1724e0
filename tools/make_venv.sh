#!/bin/sh
# Makes or refreshes a virtual environment that holds the kit (editable) and its dev tools.
# Usage: tools/make_venv.sh FOLDER [CONSTRAINTS [VERSION…]]
# With CONSTRAINTS (a file for pip) it holds the kit and pytest only: dev tools ask for newer packages.
# KIT_EXTRAS names other extras of pyproject.toml than dev, such as dev,jax.
# With uv where it is present and works, with venv and pip where not. Reads pip's and uv's own settings.
set -eu
folder=$1
constraints=${2:-}
[ $# -gt 2 ] && shift 2 || set -- 3.12 3.13 3.11
here=$(dirname "$0")

usable() { # the environment stands, runs, and is of a wanted version
    [ -x "$folder/bin/python" ] || return 1
    has=$("$folder/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || return 1
    case " $* " in *" $has "*) return 0 ;; *) return 1 ;; esac
}

install() { # install COMMAND…: run it with what is to be installed
    if [ -n "$constraints" ]; then
        "$@" --constraint "$constraints" -e . pytest
    else
        "$@" -e ".[${KIT_EXTRAS:-dev}]"
    fi
}

with_uv() {
    usable "$@" || uv venv --quiet --clear --python "$python" "$folder" || return 1
    install uv pip install --quiet --python "$folder/bin/python"
}

with_pip() {
    if ! usable "$@" || ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
        [ -x "$python" ] && [ "$python" != "$folder/bin/python" ] || python=$("$here/find_python.sh" "$@")
        "$python" -m venv --clear "$folder"
    fi
    install "$folder/bin/python" -m pip install --quiet --disable-pip-version-check
}

if usable "$@"; then
    python=$folder/bin/python
elif ! python=$("$here/find_python.sh" "$@"); then
    uv --version >/dev/null 2>&1 || exit 1
    python=$1 # uv fetches it
fi
echo "Installing the kit into $folder with $python (the first time takes some minutes)." >&2
if uv --version >/dev/null 2>&1; then
    with_uv "$@" && exit 0
    echo "uv did not manage (see above): trying venv and pip." >&2
fi
with_pip "$@"
