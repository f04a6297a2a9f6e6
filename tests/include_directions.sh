#!/usr/bin/env bash
# Checks who includes whom: core <- parallel <- models <- launch <- experiments, core <- data <-
# launch, and each vendor's headers only where they are quarantined. Prints every violation.
# usage: tests/include_directions.sh [ROOT]        (default: the project)
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

levels=()
for level in core parallel models data launch experiments; do
  [[ -d $level ]] && levels+=("$level")
done

# shellcheck disable=SC2016 # the dollars below are awk's
find "${levels[@]}" -type f \( -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' \) |
  sort | xargs -r awk '
  BEGIN {
    uses["core"] = "core"
    uses["parallel"] = "core parallel"
    uses["models"] = "core parallel models"
    uses["data"] = "core data"
    uses["launch"] = "core parallel models data launch"
    uses["experiments"] = "core parallel models data launch experiments"
    # Vendor headers (the part of #include <...>) and the files that may name them.
    quarantine["^(cuda|cublas|cudnn|curand|cooperative_groups|cub/|cutlass|thrust/)"] = "^core/cuda/"
    quarantine["^nccl"] = "^parallel/nccl[^/]*$"
    quarantine["^mpi(\\.h|/)"] = "^(parallel/mpi[^/]*|launch/main\\.cpp)$"
    quarantine["^(hdf5|H5)"] = "^core/hdf5\\.cpp$"
    quarantine["^(dnnl|oneapi/dnnl|cblas|openblas|mkl)"] = "^core/cpu/"
    quarantine["^(ceres/|Eigen/|glog/|gflags/)"] = "^experiments/fit/minimize_ceres\\.cpp$"
    quarantine["^(spdlog|fmt)/"] = "\\.cpp$"
  }
  function violation(text) {
    printf "%s:%d: %s\n", FILENAME, FNR, text
    found = 1
  }
  function check_own(header,    level, from) {
    from = FILENAME; sub("/.*", "", from)
    level = header; sub("/.*", "", level)
    if (!(level in uses) || header !~ "/")
      violation("\"" header "\" is not a path from the root of the project")
    else if (FILENAME != "launch/main.cpp" && index(" " uses[from] " ", " " level " ") == 0)
      violation(from "/ may not include " header " (it may use: " uses[from] ")")
  }
  function check_vendor(header,    pattern) {
    for (pattern in quarantine)
      if (header ~ pattern && FILENAME !~ quarantine[pattern])
        violation("<" header "> belongs only into files that match " quarantine[pattern])
  }
  /^[ \t]*#[ \t]*include[ \t]*"/ { split($0, parts, "\""); check_own(parts[2]); check_vendor(parts[2]) }
  /^[ \t]*#[ \t]*include[ \t]*</ { split($0, parts, /[<>]/); check_vendor(parts[2]) }
  END { exit found }'
