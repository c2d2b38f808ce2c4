#!/usr/bin/env bash
# run_python_tests.sh MODULE PYTHON COMPILER [pytest arguments]: the Python tests of the ops on the device code.
set -euo pipefail
# What torch sees of an op (its schema, its compiled, functional and fake form) is the same on every module.
# Strides are handled on the host, channels last are cases of their own. The shim leaves bfloat16 out.
left_out="not bfloat16 and not compiles and not fake_cuda and not profiler and not registration and not functional_gradient"
left_out+=" and not layout_does_not_matter"
exec "$(dirname "$0")/run_python.sh" "${@:1:3}" \
  -m pytest tests/ops -x -q -m "not slow" -k "$left_out" -p no:cacheprovider -n 2 "${@:4}"
