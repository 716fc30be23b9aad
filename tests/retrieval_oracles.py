"""Slow float64 twins of metrics, normalisers and search, written with loops and nothing shared."""

import math

import numpy as np


def places(row, right):
    """(candidates above, others tied) for one query, candidate by candidate."""
    above = sum(1 for x in row if x > row[right])
    tied = sum(1 for i, x in enumerate(row) if i != right and x == row[right])
    return above, tied


def summary(pairs, tie_rule):
    ranks = []
    for above, tied in pairs:
        if tie_rule == "optimistic":
            ranks.append(above + 1)
        elif tie_rule == "pessimistic":
            ranks.append(above + tied + 1)
        elif tie_rule in ("average", "average_border"):
            shared = list(range(above + 1, above + tied + 2))
            ranks.append(sum(shared) / len(shared))
        elif tie_rule == "clip4clip":
            ranks += list(range(above + 1, above + tied + 2))
    ranks.sort()
    n = len(ranks)
    middle = ranks[n // 2] if n % 2 else (ranks[n // 2 - 1] + ranks[n // 2]) / 2
    out = {f"R@{k}": 100 * sum(r <= k for r in ranks) / n for k in (1, 5, 10, 50)}
    if tie_rule == "average_border":  # CE counts `cols == 0`, then `cols < k`, from places from 0
        for k in (5, 10, 50):
            out[f"R@{k}"] = 100 * sum(r - 1 < k for r in ranks) / n
    return out | {"MdR": middle, "MnR": sum(ranks) / n}


def text_to_video(scores, of, tie_rule):
    return summary([places(list(scores[i]), of[i]) for i in range(len(of))], tie_rule)


def video_to_text(scores, of, tie_rule, rule):
    pairs = []
    for v in range(scores.shape[1]):
        own = [i for i in range(len(of)) if of[i] == v]
        if not own:
            continue
        column = [scores[i][v] for i in range(len(of))]
        if rule == "best_caption":
            best = max(own, key=lambda i: column[i])
            pairs.append(places(column, best))
        else:
            groups = sorted(set(of))
            row = [max(column[i] for i in range(len(of)) if of[i] == g) for g in groups]
            pairs.append(places(row, groups.index(v)))
    return summary(pairs, tie_rule)


def normalization_error(x, r, c):
    n, m = x.shape
    video, text = [], []
    for j in range(m):
        total = 0.0
        for i in range(n):
            total += r[i] * math.exp(x[i, j]) / sum(math.exp(x[i, k]) for k in range(m))
        video.append(abs(total / c[j] - 1))
    for i in range(n):
        total = 0.0
        for j in range(m):
            total += c[j] * math.exp(x[i, j]) / sum(math.exp(x[k, j]) for k in range(n))
        text.append(abs(total / r[i] - 1))
    return {"video_mean": sum(video) / m, "video_max": max(video),
            "text_mean": sum(text) / n, "text_max": max(text)}  # fmt: skip


def occurrences(scores, k):
    """N_k of each column; only for rows without ties at the border."""
    n = [0] * scores.shape[1]
    for row in scores:
        for j in sorted(range(len(row)), key=lambda j: -row[j])[:k]:
            n[j] += 1
    return n


def hubness(scores, k):
    n = occurrences(scores, k)
    items, total = len(n), sum(n)
    mean = total / items
    second = sum((x - mean) ** 2 for x in n) / items
    third = sum((x - mean) ** 3 for x in n) / items
    return {
        "skewness": third / second**1.5,
        "robin_hood": sum(abs(x - mean) for x in n) / 2 / total,
        "anti_hub_rate": sum(x == 0 for x in n) / items,
        "hub_occurrence": sum(x for x in n if x >= 2 * mean) / total,
    }


def lse(values):
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def sinkhorn_item_biases(s, iterations, strength=1.0):
    """Item biases of logits [query, item], gallery first, masses 1 and N/M, mean 0."""
    n, m = len(s), len(s[0])
    log_c = math.log(n / m)
    b = [strength * (log_c - lse([s[i][j] for i in range(n)])) for j in range(m)]
    for _ in range(iterations):
        a = [-strength * lse([s[i][j] + b[j] for j in range(m)]) for i in range(n)]
        b = [strength * (log_c - lse([s[i][j] + a[i] for i in range(n)])) for j in range(m)]
    return [x - sum(b) / m for x in b]


def cosines(a, b):
    return [[sum(float(x) * float(y) for x, y in zip(p, q, strict=True)) for q in b] for p in a]


def largest_mean(values, k):
    return sum(sorted(values)[-k:]) / min(k, len(values))


def active_items(bank, k):
    """Union over bank rows of their k best items."""
    chosen = set()
    for row in bank:
        chosen |= set(sorted(range(len(row)), key=lambda j: -row[j])[:k])
    return chosen


def scores_of(name, query, bank, item, gallery, p):
    """Scores [query][gallery] of a normaliser by its formula; `p` holds its settings."""
    test, train = cosines(query, gallery), cosines(bank, gallery)
    columns = list(zip(*train, strict=True))
    among = list(zip(*cosines(item, gallery), strict=True))
    m = range(len(gallery))

    def inverted(beta, of):
        return [-lse([beta * x for x in of[j]]) for j in m]

    def gate(row, rows):
        return max(m, key=lambda j: row[j]) in active_items(rows, p["k"])

    out = []
    for row in test:
        if name == "none":
            new = list(row)
        elif name == "ncl":
            s = [[p["scale"] * x for x in r] for r in train]
            b = sinkhorn_item_biases(s, p["iterations"], p.get("strength", 1.0))
            new = [p["scale"] * row[j] + b[j] for j in m]
        elif name == "sinkhorn_test":
            s = [[p["scale"] * x for x in r] for r in test]
            b = sinkhorn_item_biases(s, p["iterations"])
            new = [p["scale"] * row[j] + b[j] for j in m]
        elif name == "sinkhorn_single":
            s = [[p["scale"] * x for x in r] for r in [*train, row]]
            b = sinkhorn_item_biases(s, p["iterations"])
            new = [p["scale"] * row[j] + b[j] for j in m]
        elif name == "inverted_softmax":
            total = [sum(math.exp(p["beta"] * x) for x in columns[j]) for j in m]
            new = [math.exp(p["beta"] * row[j]) / total[j] for j in m]
        elif name == "csls":
            own = largest_mean(row, p["k"])
            new = [2 * row[j] - own - largest_mean(columns[j], p["k"]) for j in m]
        elif name == "nnn":
            new = [row[j] - p["alpha"] * largest_mean(columns[j], p["k"]) for j in m]
        elif name == "qb_norm":
            b = inverted(p["beta"], columns)
            new = [p["beta"] * row[j] + (b[j] if gate(row, train) else 0) for j in m]
        elif name in ("dual_is", "dual_dis"):
            one, two = inverted(p["beta"], columns), inverted(p["item_beta"], among)
            first = name == "dual_is" or gate(row, train)
            second = name == "dual_is" or gate(row, cosines(item, gallery))
            both = p["beta"] + p["item_beta"]
            new = [both * row[j] + first * one[j] + second * two[j] for j in m]
        elif name == "dsl":
            new = []
            for j in m:
                over = [math.exp(p["scale"] * r[j] / p["temp"]) for r in test]
                own = math.exp(p["scale"] * row[j] / p["temp"])
                new.append(p["scale"] * row[j] * own / sum(over))
        out.append(new)
    return np.asarray(out)


def online_scores(query, bank, gallery, every, scale, iterations, strength=1.0):
    """Scores [query][gallery]: query by query, each by the bank and the queries of full blocks
    before it.
    """
    answered, out = [], []
    for place, row in enumerate(query):
        seen = answered[: place // every * every]
        train = cosines([*bank, *seen], gallery)
        b = sinkhorn_item_biases([[scale * x for x in r] for r in train], iterations, strength)
        own = cosines([row], gallery)[0]
        out.append([scale * x + y for x, y in zip(own, b, strict=True)])
        answered.append(row)
    return np.asarray(out)
