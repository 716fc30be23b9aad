"""`results.json`, schema 1, and the table a person reads at the end of a run.

Keys of results.json:
  schema       1
  run          name, seed, step (of the evaluated weights), seconds (per phase, of all commands
               that worked on the run together), and with
               config.profile_input the input_wait_share of the step time
  config       the resolved config, as nested dicts
  environment  python, platform, packages, devices (count, kind, processes), git
  data         directory, splits (per split: clips and captions, used and expected, ...), and with
               data.bank_holdout held_out_of_training (clips, captions)
  metrics      as returned by `evaluate.evaluate`, plus in_batch_norm_error and, where the
               dataset names twins, order_pairs; inductive, transductive and online scores never
               share a key; bank has the source of both directions
  files        where checkpoints, metrics, events, tokenizer, index and embeddings lie
"""

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath
from rich.console import Console
from rich.table import Table

from ncl_jax.errors import InputError
from ncl_jax.files import write_text

SCHEMA = 1
PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "av",
    "numpy", "tokenizers",
)
ROWS = {
    "plain": "plain",
    "inductive": "normalised by a bank (inductive)",
    "inductive_auto": "normalised, chosen by auto (inductive)",
    "transductive": "normalised, test queries (transductive)",
    "online": "refitted with answered queries (online)",
}
BANKS = {
    "train": ("train", "training clips"),
    "validation": ("validation", "validation clips"),
    "holdout": ("held-out", "clips held out of training"),
}
"""A word and the clips of each bank that has clips."""
DIRECTIONS = ("text_to_video", "video_to_text")
APART = {
    "each query alone": ("plain", "inductive", "inductive_auto"),
    "all test queries together": ("transductive",),
    "each query after those before it": ("online",),
}
"""Kinds of scores that may stand in one table."""
COLUMNS = {"R@1": ".1f", "R@5": ".1f", "R@10": ".1f", "R@50": ".1f", "MdR": ".1f", "MnR": ".1f",
           "norm_error_mean": ".3f"}


def environment() -> dict[str, Any]:
    """Versions, devices and git state, for the record."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": {
            "count": jax.device_count(),
            "kind": jax.devices()[0].device_kind,
            "processes": jax.process_count(),
        },
        "git": _git_state(),
    }


def write(workdir: epath.Path, results: dict[str, Any]) -> epath.Path:
    """Write `results.json` in one step, so that it is whole or absent."""
    path = workdir / "results.json"
    write_text(path, json.dumps({"schema": SCHEMA} | results, indent=2) + "\n")
    return path


def checked(content: Any, path: str) -> dict[str, Any]:
    """The content of a `results.json`, if it has the form that a run gives it.

    Args:
      content: what the file holds.
      path: for the message.

    Raises:
      ValueError: it is another program's, or damaged.
    """
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise InputError(f"{path}: expected the results of a run, found no config; name its folder")
    run, config = content.get("run"), content["config"]
    if not isinstance(run, dict) or type(run.get("seed")) is not int:
        raise InputError(f"{path}: expected the results of a run, found no seed; name its folder")
    if not isinstance(config.get("name"), str):
        raise InputError(f"{path}: expected the results of a run, its config has no name")
    per_seed = content.get("per_seed", {})
    if not isinstance(per_seed, dict) or not all(s.isdecimal() and len(s) < 10 for s in per_seed):
        raise InputError(f"{path}: expected the results of a run, its seeds are no numbers")
    for measured in (content.get("metrics"), *per_seed.values()):
        if not _measured(measured):
            raise InputError(
                f"{path}: expected metrics of text_to_video and video_to_text, each with the "
                "numbers of 'plain'; run the same command again"
            )
    return content


def _measured(metrics: Any) -> bool:
    sides = [metrics.get(d) if isinstance(metrics, dict) else None for d in DIRECTIONS]
    return all(
        isinstance(side, dict) and "plain" in side and all(map(_is_row, side.values()))
        for side in sides
    )


def _is_row(row: Any) -> bool:
    """Whether these are numbers by name, those that every table shows among them."""
    return isinstance(row, dict) and all(
        type(row.get(name, 0)) in (int, float) for name in COLUMNS
    ) and "R@1" in row


def show(results: dict[str, Any]) -> None:
    """Print the tables of a run."""
    # A fixed width where the output is a file: rich would fall back to 80 columns.
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(width=100)
    measured = results["metrics"]
    name = results["run"]["name"]
    for key, title in (("text_to_video", "text -> video"), ("video_to_text", "video -> text")):
        for kind, rows in APART.items():
            if any(row in measured[key] for row in rows):
                console.print(_table(f"{name}, {title}, {kind}", rows, measured, key))
    for line in _remarks(results):
        console.print(line, highlight=False, markup=False)


def row_name(row: str, direction: str, metrics: Sequence[dict[str, Any]]) -> str:
    """A row in words, with its bank where all of these metrics have the same one.

    Example:
      >>> row_name("inductive", "text_to_video", [{"counts": {}}])
      'normalised, train bank (inductive)'
    """
    sources = {source_of(measured, direction) for measured in metrics}
    if row != "inductive" or len(sources) != 1 or not (source := sources.pop()):
        return ROWS.get(row, row)
    return f"normalised, {BANKS.get(source, (source,))[0]} bank (inductive)"


def source_of(metrics: dict[str, Any], direction: str) -> str:
    """The bank of a direction; "" in means over seeds, which have no names."""
    bank = metrics.get("bank", {}).get(direction, {"source": "train"})  # 0.1 had no other
    return str(bank.get("source", ""))


def bank_line(metrics: dict[str, Any]) -> str:
    """The banks of both directions, in words."""
    counts = metrics.get("counts", {}).get("bank", {})
    texts, videos = f"{counts.get('texts', 0):,}", f"{counts.get('videos', 0):,}"
    by_text, by_video = (source_of(metrics, direction) for direction in DIRECTIONS)
    clips = BANKS.get(by_video, ("", "clips"))[1]
    if by_text == by_video:
        return f"{texts} captions of {videos} {clips}"
    captions = f"of {BANKS[by_text][1]}" if by_text in BANKS else f"from {by_text}"
    return f"{texts} captions {captions}; from video to text {videos} {clips}"


def _table(title: str, rows: tuple[str, ...], metrics: dict[str, Any], direction: str) -> Table:
    measured = metrics[direction]
    table = Table(title=title, title_justify="left")
    table.add_column("scores", min_width=max(map(len, ROWS.values())))
    for column in COLUMNS:
        name = "norm. error" if column == "norm_error_mean" else column
        table.add_column(name, justify="right")
    for row in filter(measured.__contains__, rows):  # a joint head knows no `inductive_auto`
        cells = [format(measured[row][column], form) for column, form in COLUMNS.items()]
        table.add_row(row_name(row, direction, [metrics]), *cells)
    return table


def _remarks(results: dict[str, Any]) -> list[str]:
    measured, counts = results["metrics"], results["metrics"]["counts"]
    error, other = measured["in_batch_norm_error"], measured["video_to_text_best_caption"]
    lines = [
        f"{counts['test']['texts']:,} captions of {counts['test']['videos']:,} clips; bank: "
        f"{bank_line(measured)}; "
        f"ties: {measured['rules']['ties']}; video to text: {measured['rules']['video_to_text']}.",
        "norm. error: mean |summed retrieval probability / fair share - 1|, 0 is fair.",
        f"in-batch norm. error: {error['plain']:.3f} plain, {error['normalised']:.3f} with the "
        "batch's own biases.",
        *(_choice(direction, measured["fit"]["inductive_auto"][side])
          for direction, side in (("text -> video", "video"), ("video -> text", "text"))
          if "inductive_auto" in measured["fit"]),
        "video -> text, plain, by the other public rule, best own caption: "
        + ", ".join(f"{name} {value:.1f}" for name, value in other["plain"].items()) + ".",
    ]
    if "order_pairs" in measured:
        pairs = measured["order_pairs"]
        lines.append(
            f"clips that differ only in the order of events: {pairs['accuracy']:.1f} % right "
            f"(chance 50), {pairs['accuracy_shuffled_frames']:.1f} % with shuffled frames."
        )
    phases = results["run"]["seconds"].items()
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in phases)
    return [*lines, f"time of all commands on this run: {seconds}."]


def _choice(direction: str, evidence: dict[str, Any]) -> str:
    """What `auto` chose for one direction, and what it went by."""
    if "banks" in evidence:  # several, of which it has chosen one
        direction += f", {BANKS[evidence['source']][0]} bank"
    if "held_out_R@1" not in evidence:
        return f"auto, {direction}: {evidence['choice']} ({evidence['reason']})."
    gain = ""
    if evidence["choice"] != "none" and "held_out_gain" in evidence:  # 0.1 went by another measure
        gain = f"margin {evidence['held_out_gain']:+.3f} ± {evidence['held_out_error']:.3f}, "
    return (
        f"auto, {direction}: {evidence['choice']}; held-out training {gain}R@1 "
        f"{evidence['held_out_R@1']:.1f}, plain {evidence['held_out_plain_R@1']:.1f}."
    )


def _git_state() -> dict[str, Any]:
    """Commit and whether files differ from it; empty outside a git checkout."""
    root = epath.Path(__file__).parent
    run = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True,
                                check=True, timeout=10).stdout.strip()
        changes = subprocess.run([*run, "status", "--porcelain"], capture_output=True, text=True,
                                 check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "dirty": bool(changes)}
