"""PyTorch's side of B1, in a process and environment of its own.

Set NCL_TORCH_PYTHON to a Python that has torch; without it these rows are left out. The losses are
written here in the form their projects use: open_clip's ClipLoss in one process computes both
logit matrices and takes two cross-entropies; the NCL unrolls its iterations under autograd.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

AGAINST = {
    "PyTorch InfoNCE (ClipLoss form)": "NCL stop K=10",
    "PyTorch NCL unroll K=10 (autograd)": "NCL unroll K=10",
}


@contextlib.contextmanager
def peers(text, video, scale) -> Iterator[dict[str, Callable[[], float]]]:
    """Calls that run one step in the other process and return its seconds."""
    python = os.environ.get("NCL_TORCH_PYTHON")
    if not python:
        print("B1: NCL_TORCH_PYTHON is not set, PyTorch is left out", flush=True)
        yield {}
        return
    import jax
    import numpy as np

    from benchmarks import loss_functions

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "inputs.npz")
        np.savez(path, text=text, video=video, scale=scale)
        pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([python, __file__, path], **pipe) as process:

            def ask(name: str) -> float:
                process.stdin.write(name + "\n")
                process.stdin.flush()
                return float(process.stdout.readline())

            for name, form in zip(AGAINST, (loss_functions.both_axes, None), strict=True):
                ask(name)
                got = np.load(path + f".{list(AGAINST).index(name)}.npz")
                form = form or loss_functions.FUNCTIONS["NCL unroll K=10"]
                value, (gx, *_) = jax.value_and_grad(form, (0, 1, 2))(text, video, scale)
                np.testing.assert_allclose(got["value"], value, rtol=1e-4, atol=1e-5)
                difference = np.linalg.norm(got["grad"] - gx)
                assert difference <= 1e-3 * np.linalg.norm(gx), f"{name}: another gradient"
            yield {name: lambda name=name: ask(name) for name in AGAINST}
            process.stdin.close()


def _serve(path: str) -> None:
    import numpy as np
    import torch
    import torch.nn.functional as F

    data = np.load(path)
    x, y, scale = (torch.tensor(data[k], requires_grad=True) for k in ("text", "video", "scale"))
    labels = torch.arange(len(x))

    def clip_loss():
        by_text, by_video = scale * x @ y.T, scale * y @ x.T
        return (F.cross_entropy(by_text, labels) + F.cross_entropy(by_video, labels)) / 2

    def normalized():
        s = scale * x @ y.T
        b = -torch.logsumexp(s, 0)
        for _ in range(10):
            a = -torch.logsumexp(s + b, 1)
            b = -torch.logsumexp(s + a[:, None], 0)
        p = s + b
        q = (s + a[:, None]).T
        return (F.cross_entropy(p, labels) + F.cross_entropy(q, labels)) / 2

    losses = dict(zip(AGAINST, (clip_loss, normalized), strict=True))
    seen = set()
    for line in sys.stdin:
        name = line.strip()
        x.grad = y.grad = scale.grad = None
        start = time.perf_counter()
        value = losses[name]()
        value.backward()
        spent = time.perf_counter() - start
        if name not in seen:
            seen.add(name)
            number = list(AGAINST).index(name)
            np.savez(path + f".{number}.npz", value=value.detach().numpy(), grad=x.grad.numpy())
        print(spent, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
