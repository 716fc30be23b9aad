"""The bank that `eval.bank` names: what may be asked for, and what of it there is."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import ml_collections
import numpy as np

from ncl_jax import arrays
from ncl_jax.errors import InputError
from ncl_jax.evaluation.banks import TRAIN, Banks, make_banks
from ncl_jax.evaluation.embeddings import Embedded, sample
from ncl_jax.readers import texts
from ncl_jax.readers.texts import GivenTexts

VALIDATION, HOLDOUT, AUTO = "validation", "holdout", "auto"
NAMES = (TRAIN, VALIDATION, HOLDOUT, AUTO)
SCORES_PAIRS = "tightTransf"
"""The head of `model.temporal` whose clips have no vectors."""


class GatheredBanks(NamedTuple):
    """The banks of a run, embedded.

    Attributes:
      banks: for evaluation.
      splits: pairs by name.
      texts: captions of a file [text, dim] by its name, where one is the bank.
      captions: their words, as far as they are known.
    """

    banks: Banks
    splits: dict[str, Embedded]
    texts: dict[str, np.ndarray]
    captions: list[str]

    def queries(self, name: str) -> tuple[np.ndarray, list[str]]:
        """Embeddings and words of the texts of a bank."""
        if name in self.texts:
            return self.texts[name], self.captions
        return self.splits[name].text, list(self.splits[name].captions)

    def pairs(self, name: str) -> Embedded:
        """Captions with clips: of the bank, or of the train split where it is a file."""
        return self.splits[name if name in self.splits else TRAIN]


def existing(config: ml_collections.ConfigDict) -> list[str]:
    """Names of the banks with clips that a run of this config has, the train split first."""
    there = {TRAIN: True, VALIDATION: _has_validation(config), HOLDOUT: config.data.bank_holdout}
    return [name for name, found in there.items() if found]


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a bank that this config does not have, and rows that its head cannot have.

    Raises:
      OSError: the file of captions cannot be read.
      ValueError: what is asked for, and what would give it.
    """
    data, name = config.data, config.eval.bank
    if not 0 <= data.bank_holdout <= 0.5:
        raise InputError(f"data.bank_holdout: expected a share in [0, 0.5], got "
                         f"{data.bank_holdout:g}")  # fmt: skip
    if config.eval.online_every < 1:
        raise InputError(
            f"eval.online_every: expected at least 1 query, got {config.eval.online_every}"
        )
    if name == VALIDATION and not _has_validation(config):
        raise InputError(
            "eval.bank=validation: expected data.validation_split to name a split other than "
            f"data.test_split, got {data.validation_split!r}; name one, or take another bank"
        )
    if name == HOLDOUT and not data.bank_holdout:
        raise InputError(
            "eval.bank=holdout: expected data.bank_holdout above 0, got 0; give the share of the "
            "training clips to hold out"
        )
    if name == AUTO and len(existing(config)) < 2:
        raise InputError(
            "eval.bank=auto: expected several banks, got the train split alone; name a "
            "data.validation_split or give a data.bank_holdout"
        )
    for key, asked in (("eval.bank=auto", name == AUTO), ("eval.online=True", config.eval.online)):
        if asked and config.model.temporal == SCORES_PAIRS:
            raise InputError(
                f"{key}: expected a head whose clips have vectors, got model.temporal="
                f"{SCORES_PAIRS}; leave it out, or take another head"
            )
    read(config)


def read(config: ml_collections.ConfigDict) -> GivenTexts | None:
    """The file that `eval.bank` names, None where it names no file.

    Raises:
      OSError, ValueError: it cannot be read, or holds no captions.
    """
    name = config.eval.bank
    if name in NAMES:
        return None
    path = pathlib.Path(name).expanduser()
    if not path.suffix and not path.exists():
        raise InputError(
            f"eval.bank: expected {', '.join(NAMES)} or a file of captions, got {name!r}"
        )
    return texts.read(path, "eval.bank")


def gather(
    config: ml_collections.ConfigDict,
    embed: Callable[[str], Embedded],
    encode: Callable[[list[str]], np.ndarray],
    given: GivenTexts | None,
) -> GatheredBanks:
    """Embeds the banks that `eval.bank` asks for.

    Args:
      config: has been checked.
      embed: name of a bank with clips -> its pairs.
      encode: captions -> [caption, dim].
      given: what `read` has read.

    Raises:
      ValueError: embeddings of a file that are not of the model's width.
    """
    asked, there = config.eval.bank, existing(config)
    names = there if asked == AUTO else [TRAIN] if given else [asked]
    splits = {
        name: sample(embed(name), config.eval.bank_clips, config.eval.bank_captions,
                     config.eval.bank_seed)
        for name in (there if given else names)
    }  # fmt: skip
    tried_on = next(name for name in (HOLDOUT, VALIDATION, TRAIN) if name in splits)
    rows = {}
    if given:
        width = splits[TRAIN].text.shape[1]
        rows = {pathlib.Path(asked).name: _rows(given, encode, width)}
    return GatheredBanks(
        make_banks(splits, tried_on, names, rows), splits, rows, given.texts if given else []
    )


def _rows(given: GivenTexts, encode: Callable[[list[str]], np.ndarray], width: int) -> np.ndarray:
    if given.rows is None:
        return encode(given.texts)
    rows = arrays.single(given.rows, "eval.bank")
    length = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if rows.shape[1] != width or not (np.isfinite(length).all() and length.all()):
        raise InputError(
            f"eval.bank: expected finite embeddings [caption, {width}] of this model, none of them "
            f"zero, got {list(rows.shape)}; embed the captions with this model, or give their words"
        )
    return (rows / length).astype(np.float32)


def _has_validation(config: ml_collections.ConfigDict) -> bool:
    return bool(config.data.validation_split) and (
        config.data.validation_split != config.data.test_split
    )
