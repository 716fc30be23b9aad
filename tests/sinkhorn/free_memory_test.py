"""What may be taken is the least that the machine and the container leave."""

import numpy as np
import psutil
import pytest

from ncl_jax.sinkhorn import free_memory, numpy_solver


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Files as the system has them: 8 GB available, no container."""
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    monkeypatch.setattr(free_memory, "_MEMINFO", tmp_path / "meminfo")
    groups = [(str(tmp_path), *names) for _, *names in free_memory._CGROUPS]
    monkeypatch.setattr(free_memory, "_CGROUPS", groups)
    return tmp_path


def test_without_a_container_it_is_what_the_machine_has_available(machine):
    assert free_memory.free_memory() == 8_192_000_000
    (machine / "memory.max").write_text("max\n")
    (machine / "memory.current").write_text("5\n")
    (machine / "memory.stat").write_text("anon 5\n")
    assert free_memory.free_memory() == 8_192_000_000


@pytest.mark.parametrize("names", [names for _, *names in free_memory._CGROUPS])
def test_a_container_leaves_its_limit_less_what_is_used(machine, names):
    for name, content in zip((*names, "memory.stat"), ("3000", "2500", "inactive_file 400\n"),
                             strict=True):  # fmt: skip
        (machine / name).write_text(content)
    assert free_memory.free_memory() == 900
    (machine / names[1]).write_text("4000")
    assert free_memory.free_memory() == 0


def test_of_an_unknown_system_it_is_a_quarter_of_all(machine):
    (machine / "meminfo").unlink()
    total = psutil.virtual_memory().total
    assert free_memory.free_memory() == pytest.approx(total / 4, rel=0.01)


def test_here_it_is_what_psutil_says(monkeypatch):
    monkeypatch.setattr(free_memory, "_CGROUPS", ())
    available = psutil.virtual_memory().available
    assert free_memory.free_memory() == pytest.approx(available, rel=0.2)


@pytest.mark.parametrize(("free", "kind"), [(8000, "StoredKernel"), (7999, "RecomputedKernel")])
def test_a_kernel_is_stored_where_it_takes_half_at_most(monkeypatch, free, kind):
    made = []
    for name in ("StoredKernel", "RecomputedKernel"):
        real = getattr(numpy_solver, name)
        make = lambda *a, real=real, name=name: made.append(name) or real(*a)  # noqa: E731
        monkeypatch.setattr(numpy_solver, name, make)
    monkeypatch.setattr(numpy_solver, "free_memory", lambda: float(free))
    rows = np.random.default_rng(0).normal(size=(25, 4)).astype(np.float32)
    numpy_solver.balance(rows, np.repeat(rows, 2, axis=0)[:40], 1.0, 2)  # 4 * 25 * 40 bytes
    assert made == [kind]
