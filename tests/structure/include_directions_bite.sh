#!/usr/bin/env bash
# The check of include directions must find each kind of violation, or its silence means nothing.
set -euo pipefail
check=$(realpath "$(dirname "$0")/../include_directions.sh")
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

# expect good|bad FILE INCLUDE: a tree that holds this one file passes or not.
expect() {
  local verdict=good
  rm -rf "${tree:?}"/*
  mkdir -p "$tree/$(dirname "$2")"
  echo "#include $3" >"$tree/$2"
  "$check" "$tree" >"$tree/report" || verdict=bad
  [[ $verdict == "$1" ]] && return
  echo "$2 with #include $3 should be $1, but is $verdict: $(cat "$tree/report")"
  failures=$((failures + 1))
}

expect good core/a.cpp '"core/b.h"'
expect good models/a.cpp '"parallel/b.h"'
expect good experiments/a.cpp '"data/b.h"'
expect good launch/main.cpp '"experiments/b.h"'
expect good core/a.cpp '<vector>'
expect bad core/a.cpp '"parallel/b.h"'
expect bad parallel/a.h '"models/b.h"'
expect bad models/a.cpp '"data/b.h"'
expect bad data/a.cpp '"parallel/b.h"'
expect bad launch/a.cpp '"experiments/b.h"'
expect bad core/a.cpp '"tests/b.h"'
expect bad core/a.cpp '"b.h"'

expect good core/cuda/a.cu '<cuda_runtime.h>'
expect bad core/a.cpp '<cuda_runtime.h>'
expect bad models/a.cpp '<cublasLt.h>'
expect good parallel/nccl.cpp '<nccl.h>'
expect bad core/cuda/a.cu '<nccl.h>'
expect good parallel/mpi.cpp '<mpi.h>'
expect good launch/main.cpp '<mpi.h>'
expect bad launch/trainer.cpp '<mpi.h>'
expect good core/hdf5.cpp '<hdf5.h>'
expect bad data/token_file.cpp '<hdf5.h>'
expect good core/cpu/matmul_onednn.cpp '<dnnl.h>'
expect bad core/a.cpp '<oneapi/dnnl/dnnl.h>'
expect good experiments/fit/minimize_ceres.cpp '<ceres/tiny_solver.h>'
expect bad experiments/fit/law.cpp '<ceres/jet.h>'
expect good core/a.cpp '<fmt/format.h>'
expect bad core/a.h '<fmt/format.h>'
expect bad core/cuda/a.cu '<spdlog/spdlog.h>'

exit "$failures"
