#!/bin/sh
# Build this bundle's engines with trtexec, one for each number of images: model-1.engine and so on.
# The flags that a version knows are read from its own help, so that 8.2, 8.5, 8.6, 10 and 11 all work.
# run.py does not need this; it builds and keeps engines of its own.
#
#     ./build_engine.sh [MiB of workspace]        TRTEXEC=/path/to/trtexec to name another trtexec
set -eu
cd "$$(dirname "$$0")"
trtexec=$${TRTEXEC:-$$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)}
workspace=$${1:-$workspace}
fp16=$fp16 int8=$int8 sparse=$sparse typed=$typed dynamic=$dynamic shape=$shape

fail() {
    echo "error: $$1" >&2
    exit 3
}

[ -x "$$trtexec" ] || fail "no trtexec at $$trtexec; the pip packages do not hold it, JetPack has it in /usr/src/tensorrt/bin"
help=$$("$$trtexec" --help 2>&1 || true)
knows() { printf '%s\n' "$$help" | grep -Eq -e "(^|[^A-Za-z-])--$$1([^A-Za-z]|\$$)"; }

set -- --onnx=model.onnx --timingCacheFile=trtexec.timings
if knows memPoolSize; then
    set -- "$$@" "--memPoolSize=workspace:$$workspace"
else
    set -- "$$@" "--workspace=$$workspace"
fi
if [ "$$fp16" = 1 ]; then
    knows fp16 || fail "this TensorRT has no --fp16: from 11 on the precision stands in the ONNX file; export for a target of this version"
    set -- "$$@" --fp16
fi
if [ "$$int8" = 1 ]; then
    knows int8 || fail "this TensorRT has no --int8: from 11 on the precision stands in the ONNX file; export for a target of this version"
    # TensorRT passes over ranges that another version signed, and would take random ones instead.
    number=$$(printf '%s\n' "$$help" | sed -n 's/.*\[TensorRT v\([0-9]*\)\].*/\1/p' | head -n 1)
    sed "1s/^TRT-[0-9]*/TRT-$${number:-$calibrated_for}/" calibration.cache >trtexec.calibration
    set -- "$$@" --int8 --calib=trtexec.calibration
fi
if [ "$$typed" = 1 ] && knows stronglyTyped; then set -- "$$@" --stronglyTyped; fi
if [ "$$sparse" = 1 ]; then set -- "$$@" --sparsity=enable; fi
if knows skipInference; then set -- "$$@" --skipInference; else set -- "$$@" --buildOnly; fi

for batch in $batches; do
    if [ "$$dynamic" = 1 ]; then
        "$$trtexec" "$$@" "--saveEngine=model-$$batch.engine" "--minShapes=images:1x$$shape" \
            "--optShapes=images:$${batch}x$$shape" "--maxShapes=images:$${batch}x$$shape"
    else
        "$$trtexec" "$$@" "--saveEngine=model-$$batch.engine"
    fi
done
