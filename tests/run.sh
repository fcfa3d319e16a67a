#!/usr/bin/env bash
# run.sh - builds and runs the tests. `make test` runs `tests/run.sh quick`, `make check-full` `... full`.
#
#   quick  unit and end-to-end tests under ASan+UBSan, those between network namespaces too, what has
#          threads under TSan too, the fuzz corpora replayed, the proof that nothing is allocated
#          (sanitizers bring an allocator of their own), and the planted bugs that are quick to find
#   full   the same with every seed and operation, the release build, the end-to-end tests under TSan
#          too, longer campaigns, all planted bugs, fuzzing, and XDP on Linux 6.1 in an emulated machine
#   netns  a cluster in network namespaces, with every fault, in the release build (make check-netns)
#
# A test exits with 0 (passed), 77 (skipped; its last line says why) or anything else (failed). Output of
# a test is shown when it fails. The last line counts: "N passed, N failed, N skipped".
set -uo pipefail
cd "$(dirname "$0")/.."
mode=${1:-quick}
passed=0 failed=0 skipped=0
failures=()
log=$(mktemp)
side=$(mktemp -d)
trap 'rm -rf "$log" "$side"' EXIT

export SLUICE_MODE=$mode
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1

# attempt LOG SECONDS COMMAND...: runs one test; LOG.rc then holds its exit status and how long it took.
attempt() {
  local out=$1 seconds=$2 begun=$EPOCHREALTIME rc
  shift 2
  timeout --kill-after=10 "$seconds" "$@" >"$out" 2>&1
  rc=$?
  awk -v rc="$rc" -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "%d %.1f\n", rc, b - a }' >"$out.rc"
}

# tell NAME LOG: counts a test that was run, and says what became of it.
tell() {
  local name=$1 out=$2 rc took
  read -r rc took <"$out.rc"
  case $rc in
    0) passed=$((passed + 1)); printf 'ok    %-48s %6s s\n' "$name" "$took" ;;
    77) skipped=$((skipped + 1)); printf 'skip  %-48s %s\n' "$name" "$(tail -n 1 "$out")" ;;
    *) failed=$((failed + 1)); failures+=("$name")
       printf 'FAIL  %-48s exit %s after %s s\n' "$name" "$rc" "$took"; tail -n 60 "$out" | sed 's/^/      /' ;;
  esac
  rm -f "$out.rc"
}

# check NAME SECONDS COMMAND...: runs one test.
check() {
  attempt "$log" "${@:2}"
  tell "$1" "$log"
}

build() { # build BUILD [PLANT] TARGET...
  local b=$1 p=$2
  shift 2
  make -s -j"$(nproc)" BUILD="$b" PLANT="$p" "$@" >"$log" 2>&1 && return 0
  failed=$((failed + 1)); failures+=("build $b $p")
  printf 'FAIL  build %s %s %s\n' "$b" "$p" "$*"; tail -n 40 "$log"
  return 1
}

# Tests in which threads meet; they run under TSan as well.
threaded() { grep -lE '^ \* .*[Tt]hread|pthread_create|worker_start|admin_start|sluice_open|cluster_start' tests/unit/test_*.c; }

unit() { # unit BUILD FILE...
  local b=$1 f n
  shift
  local targets=()
  for f in "$@"; do n=$(basename "$f"); n=${n%.*}; targets+=("build/$b/unit/$n"); done
  build "$b" '' "${targets[@]}" all || return
  for f in "$@"; do # two at a time: many wait more than they work
    n=$(basename "$f")
    n=${n%.*}
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    SLUICE_BIN="build/$b/sluice" attempt "$side/$n" 300 "build/$b/unit/$n" &
  done
  wait
  for f in "$@"; do
    n=$(basename "$f")
    n=${n%.*}
    tell "$b/$n" "$side/$n"
  done
}

corpora() {
  local f n
  build asan '' fuzzers || return
  for f in tests/fuzz/fuzz_*.c; do
    n=$(basename "$f" .c)
    check "corpus/${n#fuzz_}" 120 "build/asan/fuzz/$n" "tests/fuzz/corpus/${n#fuzz_}"
  done
}

# New seeds every time; a few with sanitizers, many without.
simulated() {
  local huge=GLIBC_TUNABLES=glibc.malloc.hugetlb=1 # a fifth of its time is the clearing of small pages
  build asan '' build/asan/sim && check asan/sim 300 build/asan/sim -n 10
  if [ "$mode" = full ]; then
    build release '' build/release/sim && check sim 12000 env "$huge" build/release/sim -n 20000 -j "$(nproc)"
    check sim-mutants 6000 tests/sim/mutants.sh
  else
    build release '' build/release/sim && check sim 400 env "$huge" build/release/sim -n 300 -j "$(nproc)"
  fi
}

end_to_end() { # end_to_end BUILD
  local t
  build "$1" '' all || return
  for t in tests/e2e/test_*.sh tests/e2e/test_*.py; do
    [ -e "$t" ] || continue
    case $t in
      *.py) SLUICE_BIN="build/$1" SLUICE_MODE=$mode check "$1/$(basename "$t")" 900 /usr/bin/python3 "$t" ;;
      *) SLUICE_BIN="build/$1" SLUICE_MODE=$mode check "$1/$(basename "$t")" 900 bash "$t" ;;
    esac
  done
}

# Hosts in network namespaces; skipped where these cannot be made.
namespaces() { # namespaces BUILD [TEST]
  local t
  build "$1" '' all "build/$1/wan" || return
  # A rolling upgrade needs another build.
  [ "$mode" = quick ] || build "$1" NEXT_VERSION all || return
  for t in tests/netns/${2:-test_*.py}; do
    SLUICE_BIN="build/$1" SLUICE_MODE=$mode check "$1/netns/$(basename "$t")" 600 /usr/bin/python3 "$t"
  done
}

# planted NAME BUILD TEST: with the bug NAME planted, TEST (a unit test or an end-to-end script) must fail.
planted() {
  local name=$1 b=$2 t=$3 rc
  case $t in
    tests/e2e/*)
      build "$b" "$name" all || return
      SLUICE_BIN="build/$b-$name" SLUICE_MODE=quick timeout 300 bash "$t" >"$log" 2>&1 ;;
    *)
      build "$b" "$name" "build/$b-$name/unit/$t" || return
      timeout 300 "build/$b-$name/unit/$t" >"$log" 2>&1 ;;
  esac
  rc=$?
  if [ $rc -ne 0 ] && [ $rc -ne 77 ]; then
    passed=$((passed + 1)); printf 'ok    planted %-40s found by %s\n' "$name" "$(basename "$t")"
  else
    failed=$((failed + 1)); failures+=("planted $name")
    printf 'FAIL  planted %-40s not found by %s (exit %s)\n' "$name" "$t" "$rc"
  fi
}

all_planted() { # tests/planted.txt: name, build, test, quick|full
  local name b t when
  while read -r name b t when; do
    case $name in '' | '#'*) continue ;; esac
    [ "$mode" = full ] || [ "$when" = quick ] || continue
    planted "$name" "$b" "$t"
  done <tests/planted.txt
}

summary() {
  [ ${#failures[@]} -eq 0 ] || printf 'failed: %s\n' "${failures[*]}"
  printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}

if [ "$mode" = netns ]; then
  SLUICE_MODE=full
  mode=full
  namespaces release test_cluster.py
  namespaces release test_regions.py
  namespaces release test_failover.py
  cat "$log"
  summary
  exit
fi
unit asan tests/unit/test_*.c tests/unit/test_*.cc
# shellcheck disable=SC2046
unit tsan $(threaded)
unit release tests/unit/test_no_alloc.c
corpora
simulated
end_to_end asan
namespaces asan
all_planted
if [ "$mode" = full ]; then
  unit release tests/unit/test_*.c
  end_to_end release
  namespaces release
  end_to_end tsan
  namespaces tsan
  check kernel 6000 tests/kernel/run.sh
  check fuzz 3000 make -s fuzz FUZZ_SECONDS="${FUZZ_SECONDS:-60}"
fi
summary
