#!/usr/bin/env bash
# Verdict and timing of a bundle as one step of a pipeline.
#
#     gate.sh BUNDLE [RUN]      the run's checkpoint makes the attack stronger; without it numpy is enough
#
# Environment: MAX_P90_MS (latency budget of one image, default 50), MAX_CLEAN_DROP and MAX_ROBUST_DROP (points,
# default 1), THREADS (default 1), BENCH_SECONDS (least time of each measurement, default 1), OUT (folder of
# verify.json, verify.xml (JUnit) and bench.json, default gate-out).
#
# Both steps run even if the first fails. The exit code is the first that is not 0: 1 the artifact lost accuracy or is
# too slow, 2 wrong usage, 3 a backend is missing on this machine, 4 the bundle is damaged, 5 too few images
# to decide (raise the drops, or give a run with more test images).
set -uo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: gate.sh BUNDLE [RUN]" >&2
  exit 2
fi
bundle=$1
out=${OUT:-gate-out}
threads=${THREADS:-1}
attacked=(--max-clean-drop "${MAX_CLEAN_DROP:-1}" --max-robust-drop "${MAX_ROBUST_DROP:-1}" --threads "$threads")
attacked+=(-o "$out/verify.json" --junit "$out/verify.xml")
mkdir -p "$out" || exit 2

if [ $# -eq 2 ]; then
  robust-edge verify "$bundle" --against "$2" "${attacked[@]}"
else
  robust-edge-device verify "$bundle" "${attacked[@]}"
fi
verified=$?
robust-edge-device bench "$bundle" --threads "$threads" --seconds "${BENCH_SECONDS:-1}" \
  --max-p90-ms "${MAX_P90_MS:-50}" -o "$out/bench.json"
timed=$?

echo "gate: verify exit $verified, bench exit $timed"
[ "$verified" -eq 0 ] || exit "$verified"
exit "$timed"
