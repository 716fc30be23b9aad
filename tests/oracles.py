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
    s = scores(text, video, scale)
    mass = [1.0 if v else 0.0 for v in valid]
    a, b = sinkhorn(s, mass, mass, iterations) if biases is None else biases
    return cross_entropies(s, ids, valid, a, b, positives)


def ncl_biases(text, video, scale, valid, iterations):
    mass = [1.0 if v else 0.0 for v in valid]
    return sinkhorn(scores(text, video, scale), mass, mass, iterations)


def derivative(function, at, direction, step):
    """Central difference of fourth order along a direction."""
    f = [function(at + k * step * direction) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)
