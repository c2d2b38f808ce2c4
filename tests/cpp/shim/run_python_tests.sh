#!/usr/bin/env bash
# run_python_tests.sh MODULE PYTHON COMPILER [pytest arguments]: the Python tests of the ops on the device code, played by
# the CPU under AddressSanitizer and UBSan. They run in a copy of the package, which alone gets the module.
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
export PYDISTILL_ISA=shim PYDISTILL_SHIM_SEED=${PYDISTILL_SHIM_SEED:-0} OMP_NUM_THREADS=1
preload="$($compiler -print-file-name=libasan.so) $($compiler -print-file-name=libstdc++.so)"
# What torch sees of an op (its schema, its compiled, functional and fake form) is the same on every module.
# Strides are handled on the host, channels last are cases of their own. The shim leaves bfloat16 out.
left_out="not bfloat16 and not compiles and not fake_cuda and not profiler and not registration and not functional_gradient"
left_out+=" and not layout_does_not_matter"
LD_PRELOAD=$preload "$python" -m pytest tests/ops -x -q -m "not slow" -k "$left_out" -p no:cacheprovider -n 2 "$@"
