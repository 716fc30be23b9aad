"""The run report: its findings against plain loops, its markup, and the page in a real browser."""

import functools
import html.parser
import io
import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from ncl_jax.cli import report
from ncl_jax.data.records import Split
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.experiment.finished import FinishedRun
from ncl_jax.normalizers import LazyScores
from ncl_jax.report import curves, details, findings, page, pictures, plots, runs
from tests.report.report_test import METRICS, config

EVIL = "<script>alert('caption')</script> & \"quotes\""


def jpeg(colour, size=(40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


def unit(rng, rows, dim=6):
    x = rng.normal(size=(rows, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@functools.cache
def opened(texts=60, videos=15):
    """A run whose captions and ids are as unfriendly as they come."""
    rng = np.random.default_rng(0)
    of = np.concatenate([np.arange(videos), rng.integers(0, videos, texts - videos)])
    video = unit(rng, videos)
    text = video[of] + 0.5 * unit(rng, texts)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    bank = Embedded(unit(rng, 200), unit(rng, 50), rng.integers(0, 50, 200), range(50))
    ids = [f"clip <{i}>" for i in range(videos)]
    colours = [tuple(int(x) for x in rng.integers(0, 255, 3)) for _ in range(videos)]
    return FinishedRun(
        {}, Embedded(text, video, of, ids), bank, 30.0,
        Split([{"frames": [jpeg(c)] * 6} for c in colours], ids,
              [f"{EVIL} {i}" for i in range(texts)], of),
    )  # fmt: skip


def workdir(folder, **changes):
    """What a finished run leaves, as far as the page reads it."""
    folder.mkdir(parents=True)
    settings = config(**changes) | {"train": {"batch_size": 8}, "eval": {"iterations": 4}}
    kinds = ("plain", "inductive", "transductive")
    rows = {k: METRICS | {"R@1": 40.0 + i, "norm_error_mean": 0.1} for i, k in enumerate(kinds)}
    count = {"used": 4, "expected": 5}
    split = {"clips": count, "captions": count, "missing": {"count": 1, "first": ["x"]},
             "unreadable": {"count": 0, "first": {}}}  # fmt: skip
    content = {
        "schema": 1,
        "run": {"name": settings["name"], "seed": settings["seed"], "step": 20,
                "seconds": {"training": 1.0}},
        "config": settings,
        "environment": {"devices": {"count": 1, "kind": "cpu"}, "packages": {"jax": "0.10"},
                        "git": {"commit": "abcdef0123456789", "dirty": False}},
        "data": {"directory": "data/<dir>", "splits": {"test": split}},
        "metrics": {"text_to_video": rows, "video_to_text": rows},
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(content))
    lines = [{"step": s, "time": 0.0, "train/loss": 4.0 / s, "train/constant": 1.0}
             for s in (1, 2, 3, 2, 3, 4)]  # fmt: skip
    text = "\n".join(map(json.dumps, lines)) + '\n{"step": 5, "train/lo'
    (folder / "metrics.jsonl").write_text(text)
    return folder


def rendered(tmp_path, *names, **changes):
    folders = [workdir(tmp_path / name, **changes, loss__iterations=i)
               for i, name in enumerate(names)]
    loaded = runs.load(folders)
    found = {label: details.details(opened(), 4) for label in page.labels(loaded)}
    return page.render(loaded, found)


# --- findings ---------------------------------------------------------------------------------


def tied(rng):
    return np.round(rng.normal(size=(30, 12)) * 3, 1).astype(np.float32)


def repeated(rng):
    """Every caption twice: its rows are read together, so not in the order of the captions."""
    return LazyScores(np.tile(unit(rng, 15), (2, 1)), unit(rng, 12), 3.0)


@pytest.mark.parametrize("matrix", [tied, repeated])
def test_search_against_loops(matrix):
    rng = np.random.default_rng(1)
    scores = matrix(rng)
    of = rng.integers(0, 12, 30)
    found = findings.search(scores, of)
    share, lists, firsts = np.zeros(12), np.zeros(12), np.zeros(12)
    scores = scores[0:30]
    for i, row in enumerate(scores):
        p = [np.exp(float(x)) for x in row]
        order = sorted(range(12), key=lambda j: (-row[j], j))
        assert np.array_equal(scores[i, found.best[i]], row[order[:5]])
        others = [row[j] for j in range(12) if j != of[i]]
        above = sum(x > row[of[i]] for x in others)
        tied = sum(x == row[of[i]] for x in others)
        assert found.rank[i] == 1 + above + tied / 2
        assert np.isclose(found.lead[i], row[of[i]] - max(others))
        firsts[found.best[i, 0]] += 1
        for j in range(12):
            share[j] += p[j] / sum(p) * 12 / 30
        lists[order[:10]] += 1
    assert np.allclose(found.share, share)
    assert np.isclose(found.share.mean(), 1)
    assert np.array_equal(found.firsts, firsts)
    assert found.lists.sum() == 300
    assert np.abs(found.lists - lists).sum() <= 30  # ties at the tenth place may differ


def test_telling_queries_are_what_they_say():
    rng = np.random.default_rng(2)
    of = rng.integers(0, 40, 120)
    before, after = (findings.search(rng.normal(size=(120, 40)), of) for _ in range(2))
    chosen = findings.telling_queries(before, after, of)
    assert len({q.text for q in chosen}) == len({int(of[q.text]) for q in chosen}) == 12
    by_why = {}
    for q in chosen:
        by_why.setdefault(q.why.split()[0], []).append(q.text)
    assert by_why["best"][0] == np.argmax(after.lead)
    assert after.lead[by_why["worst"]].max() < np.quantile(after.lead, 0.1)
    assert all(after.rank[t] < before.rank[t] for t in by_why["gained"])
    assert all(after.rank[t] > before.rank[t] for t in by_why["lost"])


def test_convergence_falls_where_it_was_fitted():
    run = opened()
    rows = findings.convergence(run.test.text, run.test.video, run.bank.text, 10.0, (0, 4, 32))
    assert [row["iterations"] for row in rows] == [0, 4, 32]
    assert rows[0]["bank"] > rows[1]["bank"] > rows[2]["bank"]
    assert rows[2]["bank"] < 1e-3
    assert rows[2]["test_fitted"] < 0.02 < rows[0]["test_fitted"]
    assert rows[2]["test"] > 0.02  # another set of captions is not balanced by them


def test_differences_between_configs():
    assert findings.differences([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}]) == [
        ("b", [2, 3]), ("c", [None, 4])
    ]  # fmt: skip


# --- parts ------------------------------------------------------------------------------------


def test_a_strip_shows_the_frames_in_order():
    picture = pictures.strip([jpeg("red", (80, 60)), jpeg("blue", (60, 60))], height=30)
    assert (picture.width, picture.height) == (40 + 30, 30)
    head, data = picture.uri.split(",")
    assert head == "data:image/jpeg;base64"
    import base64

    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (70, 30)
    red, blue = image.getpixel((10, 15)), image.getpixel((60, 15))
    assert red[0] > 200 > 60 > red[2]
    assert blue[2] > 200 > 60 > blue[0]
    wide = pictures.strip([jpeg(c, (160, 90)) for c in ("red", "green", "blue", "white")])
    assert (wide.width, wide.height) == (2 * 85, 48)  # the first and the last of them fit
    with pytest.raises(ValueError, match="at least one frame"):
        pictures.strip([])


def test_curves_of_a_resumed_run(tmp_path):
    found = curves.read(workdir(tmp_path / "a"))
    assert found["train/loss"] == ([1, 2, 3, 4], [4.0, 2.0, 4 / 3, 1.0])
    assert [c.name for c in curves.charts({"a": found})] == ["loss of the batch (nats)"]
    assert curves.read(tmp_path) == {}


@pytest.mark.parametrize("line", ["[1, 2]", "7", "null", '{"step": null}', '{"step": []}'])
def test_what_is_no_line_of_metrics_is_passed_over(tmp_path, line):
    workdir(tmp_path / "a")
    with (tmp_path / "a" / "metrics.jsonl").open("a") as stream:
        stream.write(f"\n{line}\n")
    assert curves.read(tmp_path / "a")["train/loss"][0] == [1, 2, 3, 4]


@pytest.mark.parametrize("plot", [
    lambda s: plots.lines({k: (v, v) for k, v in s.items()}, x="x", y="y"),
    lambda s: plots.errors({k: (v, v, v) for k, v in s.items()}, x="x", y="y"),
    lambda s: plots.shares({k: np.asarray(v) for k, v in s.items()}),
])  # fmt: skip
def test_legends_name_every_run(plot):
    legend = plot({"a": [1.0, 2.0], "_b": [2.0, 3.0]}).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["a", "_b"]


def test_svg_has_no_ids_of_its_own_groups_and_the_colours_of_the_page():
    figure = plots.lines({"$a$ <b>": ([1, 2], [3, 4]), "c": ([1, 2], [4, 3])}, x="x (s)", y="y (m)")
    text = plots.svg(figure, 'say "<b>"')
    assert 'aria-label="say &quot;&lt;b>&quot;"' in text
    assert "var(--c0)" in text
    assert "var(--ink)" in text
    assert "$a$ &lt;b&gt;" in text
    assert not re.findall(r"#(?:0072b2|303030)", text)
    ids = re.findall(r' id="([^"]+)"', text + plots.svg(figure, "another"))
    assert len(ids) == len(set(ids))


def test_points_stand_where_the_picture_has_them():
    figure = plots.lines({"a": ([0, 10, 20], [1.0, float("nan"), 3.0]), "b": ([5], [2.0])},
                         x="step", y="loss")  # fmt: skip
    drawn = plots.svg(figure, "loss")
    found = plots.points(figure)
    assert found["names"] == ["step", "loss"]
    assert [line["name"] for line in found["lines"]] == ["a", "b"]
    assert found["lines"][0]["y"] == [1, None, 3]
    left, top, right, bottom = found["box"]
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn).groups())
    assert 0 < left < right < width
    assert 0 < top < bottom < height
    low, high = found["x"]
    for line in found["lines"]:
        expected = [left + (x - low) / (high - low) * (right - left) for x in line["x"]]
        assert line["at"] == pytest.approx(expected, rel=1e-4)
    # the path of the first line begins at its first point
    starts = [(float(x), float(y)) for x, y in re.findall(r'<path d="M ([\d.]+) ([\d.]+)', drawn)]
    y = bottom - (1 - found["y"][0]) / (found["y"][1] - found["y"][0]) * (bottom - top)
    assert any(abs(a - line["at"][0]) < 0.01 and abs(b - y) < 0.01 for a, b in starts
               for line in found["lines"])  # fmt: skip


def test_long_curves_do_not_make_a_long_page():
    figure = plots.lines({"a": (np.arange(50_000), np.arange(50_000))}, x="step", y="loss")
    plots.svg(figure, "loss")
    (line,) = plots.points(figure)["lines"]
    assert len(line["x"]) == len(line["y"]) == len(line["at"]) == 2000
    assert line["x"][:3] == [0, 25, 50]


# --- markup -----------------------------------------------------------------------------------


class Elements(html.parser.HTMLParser):
    """All (tag, attributes) of a page, and whether its tags are balanced."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_self_contained_and_escaped(tmp_path):
    text = rendered(tmp_path, "a<b>&", name='<i>"x"</i>')
    elements = Elements(text).found
    assert [tag for tag, _ in elements].count("script") == 1
    assert "<i>" not in text
    assert "a&lt;b&gt;&amp;" in text
    assert "&lt;script&gt;alert(&#39;caption&#39;)" in text
    images = [a for tag, a in elements if tag == "img"]
    assert len(images) > 40
    assert all(a["src"].startswith("data:image/jpeg;base64,") for a in images)
    assert all(int(a["width"]) > 0 and int(a["height"]) == 48 and a["alt"] for a in images)
    for _, attributes in elements:
        for name in ("src", "href", "action", "srcset"):
            value = attributes.get(name) or ""
            assert not re.match(r"(https?:)?//", value), value
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_tables_keep_plain_first_and_kinds_apart(tmp_path):
    loaded = runs.load([workdir(tmp_path / n, seed=i) for i, n in enumerate("ab")])
    tables = list(page.result_tables(dict(zip("ab", loaded, strict=True))))
    apart = "all test queries together"
    assert [t.title for t in tables] == [
        "Text to video", f"Text to video, {apart}", "Video to text", f"Video to text, {apart}"
    ]  # fmt: skip
    for table in tables:
        kinds = [s.title.split()[-1] for s in table.sections]
        assert kinds == (["(transductive)"] if apart in table.title else ["plain", "(inductive)"])
        assert [label for label, _ in table.sections[0].rows] == ["a", "b"]


def test_online_scores_have_a_table_of_their_own_and_the_bank_is_named(tmp_path):
    folder = workdir(tmp_path / "a")
    content = json.loads((folder / "results.json").read_text())
    bank = {"source": "holdout", "queries": 3}
    content["metrics"] |= {"bank": {"text_to_video": bank, "video_to_text": bank},
                           "counts": {"bank": {"texts": 30, "videos": 3}}}  # fmt: skip
    rows = content["metrics"]["text_to_video"]
    rows["online"] = rows["plain"]
    (folder / "results.json").write_text(json.dumps(content))
    (loaded,) = runs.load([folder])
    found = {t.title: [s.title for s in t.sections] for t in page.result_tables({"a": loaded})}
    assert found["Text to video"] == ["plain", "normalised, held-out bank (inductive)"]
    assert found["Text to video, each query after those before it"] == [
        "refitted with answered queries (online)"]  # fmt: skip
    assert "Video to text, each query after those before it" not in found
    assert ("bank", "30 captions of 3 clips held out of training") in list(page.facts(loaded))


def test_page_names_what_differs_and_what_is_missing(tmp_path):
    text = rendered(tmp_path, "a", "b")
    assert "Where the runs differ" in text
    assert re.search(r"loss\.iterations</th><td>0</td><td>1</td>", text)
    loaded = runs.load([tmp_path / "a"])
    text = page.render(loaded, {"a": "No balance: <gone>"})
    assert "No balance: &lt;gone&gt;" in text


def test_labels_of_folders_with_one_name(tmp_path):
    loaded = runs.load([workdir(tmp_path / x / "run", seed=i) for i, x in enumerate("ab")])
    assert page.labels(loaded) == [str(tmp_path / "a/run"), str(tmp_path / "b/run")]


def test_a_page_without_curves_says_why(tmp_path):
    folder = workdir(tmp_path / "a")
    (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}')
    text = page.render(runs.load([folder]), {})
    assert "no metrics.jsonl beside the results, or no quantity in it varies" in text


def test_html_of_a_folder_whose_name_is_no_text(tmp_path, capsys):
    names = [tmp_path / os.fsdecode(name) for name in (b"a\xff", b"a\xfe")]
    folders = [str(workdir(name, seed=i)) for i, name in enumerate(names)]
    assert report.main(["html", *folders]) == 0
    assert "/report-a_xff+a_xfe.html: 0." in capsys.readouterr().out
    text = (tmp_path / "report-a_xff+a_xfe.html").read_text()
    assert all(rf"{tmp_path}/{name}" in text for name in (r"a\xff", r"a\xfe"))


def test_a_page_of_several_runs_leaves_that_of_one_alone(tmp_path):
    folders = [str(workdir(tmp_path / name, seed=i)) for i, name in enumerate("ab")]
    assert report.main(["html", folders[0], "--details=0"]) == 0
    alone = (tmp_path / "a" / "report.html").read_text()
    assert report.main(["html", *folders, "--details=0"]) == 0
    assert (tmp_path / "a" / "report.html").read_text() == alone
    assert (tmp_path / "report-a+b.html").exists()
    assert report.main(["html", str(tmp_path), "--details=0"]) == 0  # one folder over all runs
    assert "<title>2 runs: a, b · run report</title>" in (tmp_path / "report.html").read_text()


def test_long_names_are_counted_in_the_name_of_a_page(tmp_path):
    folders = [tmp_path / (letter * 60) for letter in "ab"]
    loaded = [runs.Run(folder, 0, {}, {}) for folder in folders]
    assert page.file_of(folders, loaded) == tmp_path / "report-2-runs.html"


def test_html_goes_where_it_is_told(tmp_path, capsys, monkeypatch):
    folder, out = workdir(tmp_path / "a"), tmp_path / "new" / "folder" / "page.html"
    command = ["html", str(folder), "--details=0", "--out"]
    assert report.main([*command, str(out)]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    monkeypatch.setattr(page, "render", lambda *_: 1 / 0)  # what is wrong is known before
    capsys.readouterr()
    assert report.main([*command, str(tmp_path)]) == 2
    assert "--out: expected a file for the page, got the folder" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        report.main([*command, str(out)])
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]  # no draft


def test_html_command_on_runs_without_their_data(tmp_path, capsys):
    workdir(tmp_path / "a")
    assert report.main(["html", str(tmp_path / "a")]) == 0
    text = (tmp_path / "a" / "report.html").read_text()
    assert "No balance, hubs and queries: " in text
    assert "embeddings.npz: not found" in text
    assert "report.html: 0." in capsys.readouterr().out


def test_html_names_the_runs_it_does_not_show_in_depth(tmp_path, capsys):
    folders = [str(workdir(tmp_path / name, seed=i)) for i, name in enumerate("abc")]
    assert report.main(["html", *folders, "--details=1"]) == 0
    text = (tmp_path / "report-a+b+c.html").read_text()
    assert "<title>3 runs: a, b, c · run report</title>" in text
    assert text.count("the first 1 of 3 runs are shown in depth; --details=3 shows all") == 2
    assert "Balance, hubs and queries: c" in text
    assert ", 3 runs" in capsys.readouterr().out


def test_a_run_whose_head_scores_pairs_has_no_balance_to_show(tmp_path):
    file = workdir(tmp_path / "a") / "results.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"files": {"embeddings": None}}))
    assert report.main(["html", str(tmp_path / "a")]) == 0
    text = (tmp_path / "a" / "report.html").read_text()
    assert "its head scores pairs, so the run has left no embeddings" in text


def test_axes_are_words(tmp_path):
    found = {"a": {"train/odd_key": ([1, 2], [1.0, 2.0]), "train/loss": ([1, 2], [2.0, 1.0])}}
    assert [chart.name for chart in curves.charts(found)] == [
        "loss of the batch (nats)", "odd key (train)"
    ]  # fmt: skip
    svg = plots.svg(plots.shares({"plain": np.array([0.001, 1.0, 99.0])}), "shares")
    assert "≤ 1/16" in svg
    assert "≥ 16" in svg


@pytest.mark.parametrize("content", [
    None, "{", '{"schema": 1}', '{"config": {"name": "x"}, "metrics": {}, "run": {"seed": 0}}',
])  # fmt: skip
def test_html_of_bad_input_is_one_sentence(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert report.main(["html", str(tmp_path), "--details=0"]) == 2
    told = capsys.readouterr().err.removeprefix("importing JAX and Matplotlib ...\n")
    assert len(told.splitlines()) == 1
    assert "results" in told
    assert not (tmp_path / "report.html").exists()


# --- browser ----------------------------------------------------------------------------------


def column(browser, table, number):
    script = """return [...document.querySelectorAll("table")[arguments[0]].rows]
      .filter(r => r.cells.length > 1).slice(1).map(r => r.cells[arguments[1]].textContent)"""
    return browser.execute_script(script, table, number)


def look(browser, path, width=1280, scheme="light"):
    browser.get_log("browser")  # of pages before, which others may have looked at
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(path.as_uri())


@pytest.mark.slow
def test_page_in_a_browser(browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(rendered(tmp_path / "runs", "a", "b"))
    look(browser, path)
    # every picture is there, at the size that was reserved for it
    browser.execute_script("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    browser.execute_async_script(
        "const done = arguments[0];"
        "Promise.all([...document.images].map(i => i.decode())).then(() => done())"
    )
    sizes = browser.execute_script(
        "return [...document.images].map(i => [i.naturalWidth, i.naturalHeight, i.width,"
        " +i.getAttribute('width'), +i.getAttribute('height')])"
    )
    assert len(sizes) > 80
    for natural_width, natural_height, shown, width, height in sizes:
        assert (natural_width, natural_height) == (width, height)
        assert shown > 0
    # a click sorts within each kind of scores, another the other way round
    assert column(browser, 0, 0) == ["a", "b"] * 2
    button = browser.find_elements("css selector", "table button")[0]
    button.click()
    assert column(browser, 0, 0) == ["b", "a"] * 2
    assert browser.find_elements("css selector", "[aria-sort=descending]")
    button.click()
    assert column(browser, 0, 0) == ["a", "b"] * 2
    assert len(browser.find_elements("css selector", "tr.kind")) == 6
    # the keyboard: first stop is the skip link, headings are buttons, folded parts open
    every = "a, button, summary"
    script = f"return [...document.querySelectorAll({every!r})].every(e => e.tabIndex === 0)"
    assert browser.execute_script(script)
    from selenium.webdriver.common.keys import Keys

    browser.refresh()
    browser.find_element("css selector", "body").send_keys(Keys.TAB)
    assert browser.execute_script("return document.activeElement.className") == "skip"
    summary = browser.find_element("css selector", "#settings summary")
    summary.send_keys(Keys.ENTER)
    assert browser.execute_script("return document.querySelector('#settings details').open")
    assert browser.get_log("browser") == []


@pytest.mark.slow
def test_rows_of_a_lone_run_can_be_sorted(browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(rendered(tmp_path / "runs", "a"))
    look(browser, path)
    best_last = ["40.0", "41.0"]  # plain, inductive; transductive has a table of its own
    assert column(browser, 0, 1) == best_last
    buttons = browser.find_elements("css selector", "#results table button")
    buttons[1].click()
    assert column(browser, 0, 1) == best_last[::-1]
    tables = browser.find_elements("css selector", "table")
    clips = next(i for i, t in enumerate(tables) if "first places" in t.text)
    names = column(browser, clips, 0)
    heading = tables[clips].find_element("css selector", "th button")
    for _ in range(2):
        browser.execute_script("arguments[0].click()", heading)
    assert column(browser, clips, 0) == sorted(names)


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_page_fits_the_screen_and_does_not_shift(browser, tmp_path, width):
    path = tmp_path / "report.html"
    path.write_text(rendered(tmp_path / "runs", "a"))
    look(browser, path, width)
    beside = "const e = document.documentElement; return e.scrollWidth - e.clientWidth"
    assert browser.execute_script(beside) == 0
    shift = browser.execute_async_script("""
      const done = arguments[0]; let sum = 0;
      new PerformanceObserver(l => l.getEntries().forEach(e => sum += e.value))
        .observe({type: "layout-shift", buffered: true});
      window.scrollTo(0, document.body.scrollHeight);
      setTimeout(() => done(sum), 300);""")
    assert shift == 0


def values(browser, figure):
    return figure.find_element("css selector", "output").text.split("\n")


@pytest.mark.slow
def test_curves_show_their_values_and_can_be_enlarged(browser, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    path = tmp_path / "report.html"
    path.write_text(rendered(tmp_path / "runs", "a", "b"))
    look(browser, path)
    figure = browser.find_element("css selector", "figure.live")
    svg = figure.find_element("css selector", "svg")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    data = json.loads(figure.get_attribute("data-points"))
    scale = svg.size["width"] / float(svg.get_dom_attribute("viewBox").split()[2])

    def over(step):
        """The pointer's way from the middle of the picture to a step of the curve."""
        return round(data["lines"][0]["at"][step - 1] * scale - svg.size["width"] / 2)

    def go(*moves):
        chain = ActionChains(browser, duration=20)
        chain.move_to_element_with_offset(svg, moves[0], 0)
        if len(moves) > 1:
            chain.click_and_hold().move_by_offset(moves[1] - moves[0], 0).release()
        chain.perform()

    for step, loss in ((2, "2"), (3, "1.333")):  # of the losses 4 / step
        go(over(step))
        assert values(browser, figure) == [f"training step {step}", f"a {loss}", f"b {loss}"]
    go(over(2) - 8, over(3) + 8)
    browser.execute_script("document.activeElement.blur()")
    labels = [t.text for t in svg.find_elements("css selector", ".cover ~ text")]
    assert "2" in labels
    assert "1" not in labels  # of the axis: it lies outside the part that is seen
    go(0)
    assert values(browser, figure)[0] in ("training step 2", "training step 3")
    assert svg.find_elements("css selector", ".cover")
    svg.send_keys(Keys.ESCAPE)
    assert not svg.find_elements("css selector", ".cover")
    svg.send_keys(Keys.ARROW_RIGHT)
    assert values(browser, figure) == ["training step 1", "a 4", "b 4"]
    assert browser.get_log("browser") == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 375])
@pytest.mark.parametrize("names", ["a", "ab"])
def test_every_number_of_a_result_is_seen_on_a_phone(browser, tmp_path, width, names):
    path = tmp_path / "report.html"
    path.write_text(rendered(tmp_path / "runs", *names))
    look(browser, path, width)
    script = """return [...document.querySelectorAll("#results td, #results th")].map(
      c => { const r = document.createRange(); r.selectNodeContents(c);
             const box = r.getBoundingClientRect(); return [box.left, box.right, c.innerText] })"""
    cells = browser.execute_script(script)
    assert sum(text == "0.100" for _, _, text in cells) == 6 * len(names)  # norm. error
    assert all(0 <= left <= right <= width for left, right, _ in cells), cells


def luminance(colour):
    parts = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_in_both_schemes(browser, tmp_path, scheme):
    path = tmp_path / "report.html"
    path.write_text(rendered(tmp_path / "runs", "a"))
    look(browser, path, scheme=scheme)
    script = """
      const probe = document.createElement("span"); document.body.append(probe);
      return arguments[0].map(n => { probe.style.color = `var(--${n})`;
        return getComputedStyle(probe).color; })"""
    names = ["paper", "card", "ink", "soft", "accent", "mark", *(f"c{i}" for i in range(6))]
    light = dict(zip(names, map(luminance, browser.execute_script(script, names)), strict=True))
    assert (light["paper"] > light["ink"]) == (scheme == "light")
    for name in names[2:]:
        for ground in ("paper", "card"):
            high, low = sorted((light[name], light[ground]), reverse=True)
            needed = 2.9 if re.fullmatch(r"c\d", name) else 4.5  # lines 3, text 4.5 (WCAG)
            assert (high + 0.05) / (low + 0.05) >= needed, (name, ground)
