"""The index: items with a bias each, and the bank of texts they were balanced against."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ncl_jax.biases import MAX_SCALE, PAPER_ITERATIONS, Biases
from ncl_jax.errors import InputError
from ncl_jax.index import checks, host_search, storage
from ncl_jax.index.array_files import Stored
from ncl_jax.index.bank_mass import BankMass
from ncl_jax.index.checks import unit_rows
from ncl_jax.index.items import Ids, Part, grown

DRIFT_ALLOWED = 0.1
"""Growth of the balance error, beyond that of the fit, at which a refit is due."""


class SearchResult(NamedTuple):
    """Per query the best items, best first.

    Attributes:
      ids: `ids[query][rank]`.
      scores: logits.
      rows: positions of the items in the index.

    Shapes: `ids`, `scores` and `rows` are [query, rank].

    Example:
      >>> found = RetrievalIndex.build(["a", "b"], np.eye(2), scale=10.0).search(np.eye(2), k=1)
      >>> found.ids, found.scores.tolist(), found.rows.tolist()
      ([['a'], ['b']], [[10.0], [10.0]], [[0], [1]])
    """

    ids: list[list[str]]
    scores: Float[np.ndarray, "query rank"]
    rows: Int[np.ndarray, "query rank"]


@dataclass(frozen=True, eq=False)
class RetrievalIndex:
    """Items, their biases, and the bank that `add` needs. Immutable: `add` and `remove` return a
    new index, so any number of threads may search one while another replaces it.

    `score(query, item) = scale * cosine + bias`. Make one with `build` or `load`.

    `ids` are unique strings; `video` [item, dim] has unit norm and `bias` [item] is in logits, as
    `bank_text` [bank, dim] and `bank_bias` [bank] (both empty without a bank); `row_sum` [bank] is
    the mass each bank text gives to the present gallery, which measures drift; `scale` logits per
    cosine; `strength` in [0, 1]; `log_mass` the log of an item's mass at the fit; `meta` anything
    JSON can hold. The arrays of a loaded index are memory maps and read-only.

    Example:
      >>> index = RetrievalIndex.build(["a", "b"], np.eye(3)[:2], bank_text=np.eye(3), scale=5.0)
      >>> index = index.add(["c"], np.eye(3)[2:])
      >>> index.search(np.array([0.0, 0.1, 1.0]), k=2).ids
      [['c', 'b']]
      >>> len(index.remove(["a"])), index.folded().shape
      (2, (3, 4))
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     index.save(folder)
      ...     RetrievalIndex.load(folder).ids
      ('a', 'b', 'c')
    """

    parts: tuple[Part, ...]
    bank: Stored
    row_sum: Float[np.ndarray, " bank"]
    scale: float = MAX_SCALE
    strength: float = 1.0
    log_mass: float = 0.0
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        ids: Sequence[str],
        video: Float[np.ndarray, "item dim"],
        bank_text: Float[np.ndarray, "bank dim"] | None = None,
        *,
        scale: float = MAX_SCALE,
        iterations: int = PAPER_ITERATIONS,
        strength: float = 1.0,
        biases: Biases | None = None,
        meta: dict[str, Any] | None = None,
    ) -> "RetrievalIndex":
        """An index of `video`, normalised by Sinkhorn against the bank where one is given.

        Args:
          ids: unique strings, one per item.
          video: embeddings [item, dim] of any length > 0; they are brought to unit norm here.
          bank_text: training captions' embeddings [bank, dim]. None: plain cosine search, all
            biases 0.
          scale: logits per cosine, > 0 (the model's; 100 if it is not known).
          iterations: of Sinkhorn, as in `normalizers.Ncl`, which solves it: in panels where bank x
            items is large, by all devices together where there are several accelerators; in a job
            of several processes all of them must then call.
          strength: in [0, 1], as there.
          biases: already solved for this bank (`text` [bank]) and gallery (`video` [item]), in
            logits, instead of solving.
          meta: stored with the index; beside it, where biases are solved here, "fit": the error
            they reach and the iterations they took.

        Raises:
          ValueError: doubled ids, shapes that do not fit, NaN, infinity or zero vectors; biases
            without their bank.

        Example:
          >>> index = RetrievalIndex.build(["a", "b"], np.eye(2))
          >>> index.search(np.array([[0.0, 1.0]]), k=1).ids
          [['b']]
        """
        if not scale > 0:
            raise InputError(f"scale must be > 0, got {scale}")
        video = unit_rows(video, "video embeddings")
        ids = checks.checked_ids(ids, len(video))
        bank = np.zeros((0, video.shape[1])) if bank_text is None else bank_text
        bank = unit_rows(bank, "bank embeddings", video.shape[1])
        if biases is not None:
            checks.check_biases(biases, len(bank), len(ids))
        if not len(bank) or not len(ids):
            bank, a, b = bank[:0], np.zeros(0, np.float32), np.zeros(len(ids), np.float32)
        else:
            if biases is None:
                from ncl_jax.normalizers import Ncl  # imports JAX, which a search does without

                biases, report = Ncl(scale, iterations, strength).balance(bank, video)
                fit = {"error": float(report.error), "iterations": int(report.iterations)}
                meta = {**(meta or {}), "fit": fit}
            a, b = (np.asarray(x, np.float32) for x in biases)
        log_mass = float(np.log(max(1, len(bank)) / max(1, len(ids))))
        stored = Stored({"bank_text": bank, "bank_bias": a})
        part = Part.of(Ids.of(ids), video, b)
        index = cls((part,), stored, np.zeros(len(bank)), scale, strength, log_mass)
        index = replace(index, row_sum=index._bank_mass.over(video, b))
        return replace(index, meta={**(meta or {}), "drift_at_fit": index.drift})

    # -- change --------------------------------------------------------------------------------

    def add(
        self, ids: Sequence[str], video: Float[np.ndarray, "item dim"]
    ) -> "RetrievalIndex":
        """A new index with more items; the old items' biases stay as they are.

        One pass over bank x new items: `b = strength * (log_mass - lse_i(s_i,new + a_i))`, with
        the fit's own mass and constant (never re-centred), so an item that was in the fit gets
        the bias it got there. Ask `refit_due` afterwards.

        Args:
          ids: unique strings that the index does not have yet.
          video: embeddings [item, dim] of any length > 0.

        Raises:
          ValueError: as `build`; also ids the index already has.
        """
        video = unit_rows(video, "video embeddings", self._dim)
        ids = checks.checked_ids(ids, len(video))
        known = sorted(i for part in self.parts for i in part.ids.known(ids))
        if known:
            raise InputError(f"{len(known)} ids are in the index already, such as {known[0]!r}")
        bias = self._bank_mass.item_biases(video, self.strength, self.log_mass)
        parts = grown(self.parts, Part.of(Ids.of(ids), video, bias))
        return replace(self, parts=parts, row_sum=self.row_sum + self._bank_mass.over(video, bias))

    def remove(self, ids: Sequence[str]) -> "RetrievalIndex":
        """A new index without `ids`.

        Raises:
          ValueError: an id that is not in the index.
        """
        gone, known = set(ids), set(self.ids)
        if gone - known:
            raise InputError(f"ids not in the index: {', '.join(sorted(gone - known)[:10])}")
        parts, row_sum = list[Part](), self.row_sum
        for part in self.parts:
            keep = np.asarray([i not in gone for i in part.ids], bool)
            row_sum = row_sum - self._bank_mass.over(part.video[~keep], part.bias[~keep])
            parts.append(part.only(keep))
        left = tuple(filter(len, parts)) or (parts[0],)
        return replace(self, parts=left, row_sum=row_sum)

    @property
    def drift(self) -> float:
        """Mean relative unevenness of the bank texts' mass over the present gallery.

        At balance all texts give the same mass, and then every item gets its share exactly; the
        video error of `metrics.normalization_error` is an average of these deviations. 0 without
        a bank.
        """
        if not len(self.bank_text) or not len(self):
            return 0.0
        return float(np.mean(np.abs(self.row_sum / self.row_sum.mean() - 1)))

    @property
    def refit_due(self) -> bool:
        """Whether drift has grown by more than `DRIFT_ALLOWED` since the fit; then `build` anew."""
        return self.drift > self.meta.get("drift_at_fit", 0.0) + DRIFT_ALLOWED

    @property
    def prefers_plain(self) -> bool:
        """Whether `auto` found no gain from biases of this bank (`meta["auto"]` is "none")."""
        return self.meta.get("auto") == "none"

    # -- use -----------------------------------------------------------------------------------

    def search(
        self, query: Float[np.ndarray, "*query dim"], k: int = 10, *, use_bias: bool = True
    ) -> SearchResult:
        """The k best items of each query; `min(k, len)` of them, none from an empty index.

        On accelerators that JAX has, where it is imported; else on the host, where nothing is
        compiled and scores are those of float64, rounded.

        Args:
          query: [query, dim], or one query [dim]; any length > 0.
          k: >= 1.
          use_bias: False ranks by the plain cosine.

        Returns:
          Ids, scores in logits and rows, each [query, rank].

        Raises:
          ValueError: another width than the items', NaN, infinity, zero vectors, or k < 1.
        """
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        query = unit_rows(np.atleast_2d(np.asarray(query)), "queries", self._dim)
        if _has_accelerator():
            shards = self._shards if use_bias else self._plain_shards
            scores, rows = _device_search().search(query * np.float32(self.scale), shards, k)
        else:
            parts = [(p.video, p.bias if use_bias else np.zeros_like(p.bias)) for p in self.parts]
            scores, rows = host_search.search(query, parts, k, self.scale)
        return SearchResult([[self._id(r) for r in row] for row in rows.tolist()], scores, rows)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Of all items, by row."""
        return tuple(i for part in self.parts for i in part.ids)

    @cached_property
    def video(self) -> Float[np.ndarray, "item dim"]:
        """Unit-norm vectors of all items."""
        return _joined([part.video for part in self.parts])

    @cached_property
    def bias(self) -> Float[np.ndarray, " item"]:
        """Biases of all items in logits."""
        return _joined([part.bias for part in self.parts])

    @property
    def bank_text(self) -> Float[np.ndarray, "bank dim"]:
        """Unit-norm vectors of the bank."""
        return self.bank.arrays["bank_text"]

    @property
    def bank_bias(self) -> Float[np.ndarray, " bank"]:
        """Biases of the bank in logits."""
        return self.bank.arrays["bank_bias"]

    def _id(self, row: int) -> str:
        for part in self.parts:
            if row < len(part):
                return part.ids[row]
            row -= len(part)
        raise AssertionError("no such row")

    @property
    def _bank_mass(self) -> BankMass:
        return BankMass(self.bank_text, self.bank_bias, self.scale)

    @property
    def _dim(self) -> int:
        return self.parts[0].video.shape[1]

    @cached_property
    def _shards(self) -> Any:
        return _device_search().place(self.video, self.bias)

    @cached_property
    def _plain_shards(self) -> Any:
        return _device_search().place(self.video, np.zeros_like(self.bias))

    # -- out and in ----------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the folder `path`, atomically; what it holds already is not written again.

        So saving after `add` takes as long as the new items, whatever the size. Who loads an index,
        adds to it and saves it where others may do the same holds
        `ncl_jax.index.storage.changed(path)` meanwhile.

        Args:
          path: the folder; it is made.

        Raises:
          InputError: another process has been changing the index for a minute, or `path` is the
            name of a `.npz`, which is a format that is only read.
          OSError: a file cannot be written.
        """
        fields = {"scale": self.scale, "strength": self.strength, "log_mass": self.log_mass,
                  "meta": self.meta}  # fmt: skip
        sums = Stored({"row_sum": self.row_sum})
        parts = [part.stored for part in self.parts]
        storage.write(path, storage.Content(parts, self.bank, sums, fields))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, check: bool = False) -> "RetrievalIndex":
        """What `save` wrote, as memory maps: it opens at once, and a search reads what it needs.

        Args:
          path: a folder, or the `.npz` of an index of format 1.
          check: whether all vectors are read and compared with their checksums; everything else is
            in any case.

        Raises:
          ValueError: the index is missing, damaged or of a newer version.
        """
        file = storage.file_of(path)
        content = storage.read(path, check=check)
        if wrong := checks.wrong_content(content, check or file.suffix == ".npz"):
            raise InputError(f"{file} is not an index: {wrong}; build it again")
        parts = tuple(map(Part, content.parts))
        return cls(parts, content.bank, content.sums.arrays["row_sum"], **content.fields)

    def folded(self) -> Float[np.ndarray, "item dim_plus_1"]:
        """Items `[y, bias / scale]` [item, dim + 1]; their product with `[x, 1]` is logits / scale.

        The result is not a cosine: do not renormalise, do not use an index that does, and keep
        the last coordinate out of any quantiser.
        """
        return np.column_stack([self.video, self.bias / self.scale]).astype(np.float32)

    def export(self, path: str | os.PathLike[str]) -> None:
        """A plain `.npz` for other engines: `item` (see `folded`), `ids`, `scale`.

        Raises:
          OSError: the file cannot be written.
        """
        np.savez(path, item=self.folded(), ids=np.asarray(self.ids, str), scale=self.scale)

    def to_faiss(self) -> Any:
        """`faiss.IndexFlatIP(dim + 1)` of `folded()`; position n is `self.ids[n]`.

        Of items with equal scores FAISS (1.15.1) keeps the first ones, as `search` does, but lists
        them last to first.

        Raises:
          ImportError: faiss is not installed (requirements-faiss.txt).
        """
        try:
            import faiss  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError as error:
            raise ImportError("to_faiss needs faiss: pip install faiss-cpu") from error
        flat = faiss.IndexFlatIP(self.video.shape[1] + 1)
        flat.add(self.folded())
        return flat


def fold_query(query: Float[np.ndarray, "query dim"]) -> Float[np.ndarray, "query dim_plus_1"]:
    """Unit-norm queries `[x, 1]` [query, dim + 1] for `RetrievalIndex.folded` and `to_faiss`.

    Args:
      query: [query, dim] of any length > 0.

    Raises:
      ValueError: not a matrix, NaN, infinity or zero vectors.

    Example:
      >>> fold_query(np.array([[3.0, 4.0]])).round(2).tolist()[0][2]
      1.0
    """
    query = unit_rows(query, "queries")
    return np.column_stack([query, np.ones(len(query), np.float32)])


def _has_accelerator() -> bool:
    """Whether JAX has one; whoever has not imported JAX searches on the host."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.default_backend() != "cpu"


def _device_search() -> Any:
    from ncl_jax.index import device_search  # imports JAX

    return device_search


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
