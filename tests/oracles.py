"""Slow float64 NumPy twins of the numerics, written with loops and nothing of the package.

`s[i][j]` is the logit of text i and video j. Masked rows and columns are left out by index.
"""

import math

import numpy as np


def lse(values):
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def sinkhorn(s, r, c, iterations, order="gallery", strength=1.0):
    """Biases (a, b) after the updates, or once they stand still; mean b is 0 at strength 1."""
    n, m = len(r), len(c)
    rows, cols = [i for i in range(n) if r[i] > 0], [j for j in range(m) if c[j] > 0]
    a, b = np.zeros(n), np.zeros(m)

    def update_b():
        for j in cols:
            b[j] = strength * (math.log(c[j]) - lse([s[i][j] + a[i] for i in rows]))

    if order == "gallery":
        update_b()
    for _ in range(iterations):
        for i in rows:
            a[i] = strength * (math.log(r[i]) - lse([s[i][j] + b[j] for j in cols]))
        before = b.copy()
        update_b()
        if np.abs(b - before).max() < 1e-14:
            break
    if strength == 1.0:
        shift = sum(b[j] for j in cols) / len(cols)
        a[rows] += shift
        b[cols] -= shift
    return a, b


def balanced(s, valid):
    """Biases at the fixed point for unit masses, by Newton's method on the dual problem.

    The scores are raised to full scale in steps, each solved from the last one's answer, so that
    it converges where any iteration of updates would take millions of pairs.
    """
    live = np.flatnonzero(valid)
    s, n = np.asarray(s)[np.ix_(live, live)], len(live)

    def plan(part, z):
        return np.exp(part * s + z[:n, None] + z[None, n:])

    def dual(part, z):
        return plan(part, z).sum() - z.sum()

    z = np.zeros(2 * n)
    for part in np.geomspace(1e-2, 1, 60):
        for _ in range(100):
            p = plan(part, z)
            gradient = np.concatenate([p.sum(1), p.sum(0)]) - 1
            hessian = np.block([[np.diag(p.sum(1)), p], [p.T, np.diag(p.sum(0))]])
            gauge = np.repeat([1.0, -1.0], n)
            step = np.linalg.solve(hessian + np.outer(gauge, gauge), gradient)
            size = min(1.0, 2 / np.abs(step).max(initial=1e-300))
            while dual(part, z - size * step) > dual(part, z) and size > 1e-3:
                size /= 2
            z = z - size * step
            if np.abs(step).max() < 1e-13:
                break
    a, b = np.zeros(len(valid)), np.zeros(len(valid))
    shift = z[n:].mean()
    a[live], b[live] = z[:n] + shift, z[n:] - shift
    return a, b


def scores(text, video, scale):
    def dot(x, y):
        return sum(x[k] * y[k] for k in range(len(x)))

    return [[scale * dot(x, y) for y in video] for x in text]


def positives_of(ids, valid, i, positives):
    if positives == "diagonal":
        return [i]
    return [j for j in range(len(ids)) if valid[j] and ids[j] == ids[i]]


def cross_entropies(s, ids, valid, a, b, positives):
    """Per pair: the mean of its text-to-video and video-to-text cross-entropy; 0 where padded."""
    live = [i for i in range(len(ids)) if valid[i]]
    out = np.zeros(len(ids))
    for i in live:
        group = positives_of(ids, valid, i, positives)
        t2v = lse([s[i][j] + b[j] for j in live]) - np.mean([s[i][j] + b[j] for j in group])
        v2t = lse([s[j][i] + a[j] for j in live]) - np.mean([s[j][i] + a[j] for j in group])
        out[i] = (t2v + v2t) / 2
    return out


def infonce(text, video, scale, ids, valid, positives="same_clip"):
    zero = np.zeros(len(ids))
    return cross_entropies(scores(text, video, scale), ids, valid, zero, zero, positives)


def ncl(text, video, scale, ids, valid, iterations, positives="same_clip", biases=None):
    """Per-pair losses; with `biases` those are held, as in the "stop" semantics."""
    if biases is None:
        biases = ncl_biases(text, video, scale, valid, iterations)
    return cross_entropies(scores(text, video, scale), ids, valid, *biases, positives)


def ncl_biases(text, video, scale, valid, iterations):
    """After so many pairs of updates, or at the fixed point for None."""
    s = scores(text, video, scale)
    if iterations is None:
        return balanced(s, valid)
    mass = [1.0 if v else 0.0 for v in valid]
    return sinkhorn(s, mass, mass, iterations)


def derivative(function, at, direction, step):
    """Central difference of fourth order along a direction."""
    f = [function(at + k * step * direction) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)


def bert_adam(
    params, gradients, *, rate, frozen, steps, warmup, decay, b1, b2, eps, clip, clip_each
):
    """CLIP4Clip's training loop around its BertAdam, parameter by parameter and entry by entry.

    params: {name: array}; gradients: one such dict per step; rate, frozen: functions of a name.
    """
    params = {name: np.array(value) for name, value in params.items()}
    moments = {name: (np.zeros_like(v), np.zeros_like(v)) for name, v in params.items()}
    for step, gradient in enumerate(gradients):
        trained = {name: np.array(g) for name, g in gradient.items() if not frozen(name)}
        total = math.sqrt(sum(entry**2 for g in trained.values() for entry in g.flat))
        share = step / steps
        rising = share / warmup if share < warmup else 0.5 * (1 + math.cos(math.pi * share))
        for name, g in trained.items():
            g = g * min(1.0, clip / total)
            g = g * min(1.0, clip_each / math.sqrt(sum(entry**2 for entry in g.flat)))
            first, second = moments[name]
            for i in np.ndindex(g.shape):
                first[i] = b1 * first[i] + (1 - b1) * g[i]
                second[i] = b2 * second[i] + (1 - b2) * g[i] ** 2
                change = first[i] / (math.sqrt(second[i]) + eps)
                if "bias" not in name:
                    change += decay * params[name][i]
                params[name][i] -= rate(name) * rising * change
    return params
