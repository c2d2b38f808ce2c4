#!/usr/bin/env bash
# run_python.sh MODULE PYTHON COMPILER ARGUMENTS: `PYTHON ARGUMENTS` on the device code, played by the CPU under
# AddressSanitizer and UBSan. It runs in a copy of the package, which alone gets the module.
set -euo pipefail
module=$1 python=$2 compiler=$3
shift 3
source=$(cd "$(dirname "$0")/../../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/tests"
cp -r "$source"/{pyproject.toml,pydistill} "$copy"
cp -r "$source"/tests/{__init__.py,conformance.py,golden,ops} "$copy/tests"
rm -f "$copy"/pydistill/_c*.so
cp "$module" "$copy/pydistill"
cd "$copy"
# Python and torch never free some memory, and the sanitizer's runtime must be loaded before them.
export ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0 UBSAN_OPTIONS=print_stacktrace=1
export PYDISTILL_ISA=shim PYDISTILL_SHIM_SEED=${PYDISTILL_SHIM_SEED:-$RANDOM} OMP_NUM_THREADS=1 PYTHONPATH=$copy
echo "PYDISTILL_SHIM_SEED=$PYDISTILL_SHIM_SEED"
preload="$($compiler -print-file-name=libasan.so) $($compiler -print-file-name=libstdc++.so)"
LD_PRELOAD=$preload "$python" "$@"
