import dataclasses

from robust_edge.reporting.sign_off import sign_off
from robust_edge_runtimes.core.environment import machine
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.core.runtime import RuntimeInfo
from robust_edge_runtimes.verdict.judge import MachineResult, Verdict
from robust_edge_runtimes.verdict.measurement import LOGITS, ModeResult, Parity, WorstCase
from robust_edge_runtimes.verdict.statistic import Drop

DROP = Drop(0.0, -0.5, 0.5, 1.0)
PGD = ModeResult("surrogate", AttackSpec("pgd", 8 / 255, 20, 0.004, 3), 500, 0.95, 0.94, 0.51, 0.505, DROP, DROP)
SQUARE = ModeResult(
    "blackbox", AttackSpec("square", 0.1, 500, 0.0, 7), 60, 0.9, 0.9, 0.6, 0.61, DROP, DROP, works_with=LOGITS
)
HOST, DEVICE = RuntimeInfo("onnxruntime", "1", "cpu", "CPU", 1), RuntimeInfo("tensorrt", "10.3", "cuda", "engine", 1)
VERDICT = Verdict(
    "pass", True, (), (), (), "jetson-gpu", "a" * 64, "c" * 64, HOST, machine(), Parity(0, 1e-3, 1), (PGD,), (),
    worst=WorstCase(("replay", "surrogate"), 500, 0.95, 0.94, 0.5, 0.499, DROP, DROP),
)  # fmt: skip


def test_the_line_holds_what_it_takes_to_do_it_again():
    line = sign_off(VERDICT)
    assert line.startswith(f"Signed off: artifact sha256 {'a' * 64} (jetson-gpu), checkpoint sha256 {'c' * 64}")
    assert "surrogate (PGD-20, ε = 8/255, seed 3, 500 images) clean 94.0%, robust 50.5%" in line
    assert "right in every mode 49.9% of 500 images (checkpoint 50.0%)" in line
    assert f"by onnxruntime 1 (CPU) on {VERDICT.machine.cpu}, {VERDICT.machine.utc}" in line


def test_devices_are_named_and_a_failure_is_not_signed():
    there = dataclasses.replace(VERDICT.machine, cpu="Orin")
    other = MachineResult("jetson.json", DEVICE, there, VERDICT.parity, (SQUARE,), ())
    line = sign_off(dataclasses.replace(VERDICT, outcome="fail", passed=False, elsewhere=(other,)))
    assert line.startswith("Not signed off: ")
    assert "blackbox (Square, 500 queries, ε = 0.1, seed 7, 60 images) clean 90.0%, robust 61.0%" in line
    assert line.endswith("by tensorrt 10.3 (engine) on Orin, " + there.utc + " (jetson.json).")
