#!/usr/bin/env bash
# Three ranks; one stops or kills itself in mid-run. The others must end within the deadline, with
# a report that names it and an exit code that is not 0. A run without a hang must pass unharmed.
# usage: watchdog_ends_a_hang.sh RUN_MPI PROGRAM
set -euo pipefail
run_mpi=$1
program=$2
deadline=3  # s
slack=15    # s; the grace, the start and the end of three ranks on a busy machine
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
  echo "FAILED: $*" >&2
  cat "$folder/output" >&2
  exit 1
}

# Runs the program with a fate; its output in $folder/output, its code in $code, seconds in $took.
run_with() {
  local start=$SECONDS
  code=0
  "$run_mpi" -n 3 "$program" "$folder/positions" "$deadline" "$1" >"$folder/output" 2>&1 || code=$?
  took=$((SECONDS - start))
}

expect_named() {
  ((code != 0)) || fail "a hang ($1) ended with code 0"
  ((took <= deadline + slack)) || fail "a hang ($1) took $took s to end"
  local rank
  for rank in 0 2; do
    grep -q "watchdog: rank $rank has waited .* in all_reduce 50 of world between ranks 0, 1, 2" \
      "$folder/output" || fail "rank $rank did not report ($1)"
  done
  grep -q 'while: step 50' "$folder/output" || fail "the report says not what it was doing ($1)"
  grep -q 'suspect: rank 1 (stopped, killed or cut off)' "$folder/output" ||
    fail "rank 1 is not named ($1)"
  echo "$1: ended with code $code after $took s; rank 1 named"
}

run_with none
((code == 0)) || fail "a run without a hang ended with $code"
! grep -q watchdog "$folder/output" || fail "the watchdog spoke in a run without a hang"
[[ ! -e $folder/positions ]] || fail "a run without a hang left its positions"

run_with stop
expect_named stop

# Otherwise mpirun ends the survivors before their deadline.
export OMPI_MCA_orte_abort_on_non_zero_status=0
run_with kill
expect_named kill
