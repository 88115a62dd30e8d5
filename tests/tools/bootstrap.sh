#!/bin/sh
# bootstrap.sh TOOL.py: runs a tool of this folder with a Python that fits.
# Each candidate is run and asked: a shim on the PATH may have nothing behind it.

tools=${0%/*}
[ $# -ge 1 ] || { echo "Usage: sh $0 TOOL.py" >&2; exit 2; }

runs() { # PYTHON CONDITION
    "$1" -c "import sys; v = sys.version_info[:2]; sys.exit(not ($2))" >/dev/null 2>&1
}

hand_over() { # CONDITION TOOL [ARGUMENT…]
    condition=$1
    shift
    for python in python3.13 python3.11 python3 \
        "${PYENV_ROOT:-${HOME:-/root}/.pyenv}"/versions/*/bin/python3 python3.14 python3.12; do
        if runs "$python" "$condition"; then
            tool=$1
            shift
            exec "$python" -B "$tools/$tool" "$@"
        fi
    done
}

hand_over "v in ((3, 13), (3, 11))" "$@"
# Blender as a module needs those two; the rest can do with any that is not older.
hand_over "v >= (3, 11)" "$@"

found=$(python3 -c 'import sys; print("python3 is %d.%d" % sys.version_info[:2])' 2>/dev/null)
echo "Python 3.11 or 3.13 is needed, and none was found on the PATH or under pyenv" \
    "(${found:-there is no python3 that runs}); on Debian: apt-get install python3 python3-venv" >&2
exit 1
