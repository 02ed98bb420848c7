"""The speed that the progress line shows."""

from robust_edge.training import speed as module
from robust_edge.training.speed import Speed


def test_the_speed_is_that_of_the_last_twenty_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    speed, images = Speed(1000), 1000
    for _ in range(30):
        now[0] += 1
        images += 100
        assert speed.after(images) == 100
    for _ in range(40):
        now[0] += 1
        images += 10
        found = speed.after(images)
    assert found == 10


def test_a_pause_and_a_slow_first_batch_are_averaged(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    speed = Speed(0)
    now[0] = 8.0
    assert speed.after(400) == 50
    now[0] = 10.0
    assert speed.after(1000) == 100
