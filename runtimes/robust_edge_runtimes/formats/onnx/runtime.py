"""ONNX artifacts on ONNX Runtime, on the CPU."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Mapping

import numpy as np

from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError
from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo
from robust_edge_runtimes.formats.onnx.wire import has_external_data

PROVIDER = "CPUExecutionProvider"
TOO_NEW = re.compile(r"[Uu]nsupported model IR version|[Oo]pset \d+ is under development|guarantees support")


class OnnxRuntime(BaseRuntime):
    """Executes `model.onnx` with ONNX Runtime; sessions may be shared by threads."""

    uses_threads = True
    provider = PROVIDER
    device = "cpu"
    extra = "onnxruntime"
    session_settings: ClassVar[Mapping[str, str]] = {}
    arithmetic = ""  # what is out of the ordinary about it, for `info`
    _session: Any = None

    def open_impl(self) -> RuntimeInfo:
        """Create the session and check that it uses the requested execution provider."""
        try:
            import onnxruntime as ort
        except ImportError as cause:
            raise BackendUnavailable(
                f"this bundle runs on ONNX Runtime, which is not installed ({cause}): "
                f"pip install 'robust-edge[{self.extra}]'"
            ) from cause
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for key, value in self.session_settings.items():
            options.add_session_config_entry(key, value)
        self._refuse_external_data()
        if self.provider not in ort.get_available_providers():
            raise BackendUnavailable(
                f"ONNX Runtime {ort.__version__} here has no {self.provider}, only "
                f"{', '.join(ort.get_available_providers())}: pip install 'robust-edge[{self.extra}]'"
            )
        try:
            # Without the fallback, which prints to stdout and tries other providers than the one asked for.
            session = ort.InferenceSession(str(self.path), options, providers=[self.provider], enable_fallback=0)
            names = [port.name for port in (*session.get_inputs(), *session.get_outputs())]
        except Exception as cause:  # ONNX Runtime raises classes of its own, all derived from Exception
            if TOO_NEW.search(str(cause)):
                raise BackendUnavailable(
                    f"ONNX Runtime {ort.__version__} is too old for {self.path.name} (opset "
                    f"{self.manifest.artifact.opset}, IR {self.manifest.artifact.ir_version}): pip install -r "
                    "requirements.txt in the bundle"
                ) from cause
            raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {self.path}: {cause}") from cause
        if session.get_providers()[:1] != [self.provider]:
            raise BackendUnavailable(f"ONNX Runtime uses {session.get_providers()} instead of {self.provider}")
        claimed = [self.manifest.input.name, self.manifest.output.name]
        if names != claimed:
            raise BundleError(
                f"{self.path.name} has the inputs and outputs {names}, the manifest lists {claimed}; export it again"
            )
        self._session = session
        provider = ", ".join(filter(None, [self.provider, self.arithmetic]))
        return RuntimeInfo("onnxruntime", ort.__version__, self.device, provider, self.threads)

    def _refuse_external_data(self) -> None:
        try:
            external = has_external_data(self.path)
        except ValueError as cause:
            raise BundleError(f"ONNX Runtime cannot load {self.path}: it is not an ONNX file ({cause})") from cause
        if external:
            raise BundleError(
                f"{self.path} stores weights in another file, whose hash cannot be checked; export it again"
            )

    def infer_impl(self, images: np.ndarray) -> np.ndarray:
        """Run the one input through to the one output."""
        session = self._session
        if session is None:
            raise self.not_open()
        try:
            logits: np.ndarray = session.run(None, {self.manifest.input.name: images})[0]
        except Exception as cause:  # as above
            raise BundleError(f"ONNX Runtime cannot run {self.path}: {cause}") from cause
        return logits

    def close_impl(self) -> None:
        """Drop the session."""
        self._session = None
