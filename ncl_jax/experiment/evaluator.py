"""The model of a config on the splits of its dataset: embedded, scored, measured."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

import tfds_builders
from ncl_jax.data import pipeline
from ncl_jax.data.prefetch import Ahead, watched
from ncl_jax.data.records import Split
from ncl_jax.distributed import runtime, sharding
from ncl_jax.evaluation import embeddings, evaluate
from ncl_jax.evaluation.embeddings import Embedded
from ncl_jax.evaluation.scorers import CosineScorer, PairScorer, Scorer
from ncl_jax.experiment import banks
from ncl_jax.experiment.banks import GatheredBanks
from ncl_jax.experiment.build import Parts, build_shapes, build_view
from ncl_jax.index import RetrievalIndex
from ncl_jax.progress import announced
from ncl_jax.types import TrainState

INDEX, EMBEDDINGS = "index", "embeddings.npz"


class Evaluator:
    """Validates and measures states of a run; its programs are compiled once.

    Every process embeds its rows of each batch on its devices and gets the rows of all.
    """

    def __init__(self, config: ml_collections.ConfigDict, parts: Parts, mesh: jax.sharding.Mesh):
        self._config, self._parts, self._mesh = config, parts, mesh
        self._encode_text = sharding.gathered(parts.towers.encode_text, mesh)
        self._encode_video = sharding.gathered(parts.towers.encode_video, mesh)
        self._score = None if parts.towers.score is None else jax.jit(parts.towers.score)
        self._shapes, self._view = build_shapes(config), build_view(config, "eval")
        self._share = {
            "batch_size": -(-config.eval.batch_size // mesh.size) * mesh.size,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }

    @property
    def makes_index(self) -> bool:
        """Whether clips have vectors to be searched: a head that scores pairs has none."""
        return self._score is None

    def scorer(self, params: Any) -> Scorer:
        """How captions and clips are scored under these parameters."""
        if self._score is None:
            return CosineScorer(float(self._parts.towers.scale(params)))
        score = functools.partial(self._score, params)
        return PairScorer(score, self._config.eval.batch_size)

    def embed_texts(self, params: Any, captions: Sequence[str]) -> np.ndarray:
        """Captions [caption, dim]; equal ones are embedded once."""

        def encode(different: list[str]) -> np.ndarray:
            batches = pipeline.text_batches(
                different, self._parts.tokenizer, self._shapes.max_tokens, **self._share
            )
            encode_text = functools.partial(self._encode_text, params)
            return self._embed(encode_text, batches, len(different))

        return embeddings.embed_captions(captions, encode)

    def embed(self, params: Any, split: Split, shuffle_frames: int | None = None) -> Embedded:
        """A split; a seed in `shuffle_frames` shuffles the frames of every clip."""
        shapes, view = self._shapes, self._view
        if shuffle_frames is not None:
            view = dataclasses.replace(view, order="random")
        clips = pipeline.video_batches(
            split, shapes, view, seed=shuffle_frames or 0, threads=self._config.data.threads,
            **self._share,
        )  # fmt: skip
        encode_video = functools.partial(self._encode_video, params)
        return Embedded(
            text=self.embed_texts(params, split.captions),
            video=self._embed(encode_video, clips, len(split.video_ids)),
            video_of_text=split.video_of_text,
            video_ids=split.video_ids,
            captions=split.captions,
        )

    def validate(self, state: TrainState) -> dict[str, float]:
        """Plain R@1 on the validation split; nothing where the config names none."""
        name = self._config.data.validation_split
        if not name:
            return {}
        split = self.embed(state.params, self._parts.splits[name])
        return evaluate.plain_recall(split, self.scorer(state.params))

    def measure(self, state: TrainState, workdir: epath.Path) -> dict[str, Any]:
        """All metrics of the test split, with the train split as bank.

        Where clips have vectors, it leaves an index of the test clips and the embeddings.
        """
        config = self._config
        test, train = (
            self._embed_split(state, name)
            for name in (config.data.test_split, config.data.train_split)
        )
        bank = self._banks(state, train)
        scorer = self.scorer(state.params)
        online = config.eval.online_every if config.eval.online else 0
        with announced("ranking by plain and normalised scores"):
            measured, biases = evaluate.evaluate(
                test, bank.banks, scorer, config.eval.iterations, online
            )
        source = measured["bank"]["text_to_video"]["source"]
        if isinstance(scorer, CosineScorer) and runtime.is_first():
            pairs = bank.pairs(source)
            embeddings.save_embeddings(workdir / EMBEDDINGS, test, pairs, scorer.scale)
        with announced("measuring the balance of training batches"):
            error = evaluate.in_batch_error(
                train, scorer, config.train.batch_size, config.loss.iterations, config.seed
            )
        trained_on = "normalised" if config.loss.name == "ncl" else "plain"
        measured["in_batch_norm_error"] = error | {"trained_on": error[trained_on]}
        if twins := self._test_pairs():
            shuffled = self._embed_split(state, config.data.test_split, config.seed)
            found, control = (
                evaluate.order_accuracy(test, twins, video, scorer)
                for video in (test.video, shuffled.video)
            )
            measured["order_pairs"] = found | {"accuracy_shuffled_frames": control["accuracy"]}
        if isinstance(scorer, CosineScorer):
            text, captions = bank.queries(source)
            index = RetrievalIndex.build(
                test.video_ids, test.video, text, scale=scorer.scale, biases=biases,
                meta={"bank_captions": captions,
                      "auto": measured["fit"]["inductive_auto"]["video"]["choice"]},
            )  # fmt: skip
            if runtime.is_first():
                index.save(workdir / INDEX)
        return measured

    def _banks(self, state: TrainState, train: Embedded) -> GatheredBanks:
        """Those of `eval.bank`; the train split is embedded already."""

        def embed(name: str) -> Embedded:
            if name == banks.VALIDATION:
                return self._embed_split(state, self._config.data.validation_split)
            if name != banks.HOLDOUT:
                return train
            held = self._parts.holdout
            assert held is not None  # else `banks.check` has refused it
            with announced(f"embedding the {len(held.video_ids):,} clips held out of training"):
                return self.embed(state.params, held)

        def encode(captions: list[str]) -> np.ndarray:
            with announced(f"embedding the {len(captions):,} captions of the bank"):
                return self.embed_texts(state.params, captions)

        return banks.gather(self._config, embed, encode, self._parts.bank_texts)

    def _embed_split(
        self, state: TrainState, name: str, shuffle_frames: int | None = None
    ) -> Embedded:
        split = self._parts.splits[name]
        order = "" if shuffle_frames is None else " with shuffled frames"
        with announced(f"embedding the {len(split.video_ids):,} clips of {name}{order}"):
            return self.embed(state.params, split, shuffle_frames)

    def _embed(
        self, encode: Callable[..., Any], batches: Ahead[Any], count: int
    ) -> np.ndarray:
        with contextlib.closing(batches):
            given = watched(batches, self._config.train.input_timeout, "evaluation input")
            return embeddings.embed(encode, given, count)

    def _test_pairs(self) -> list[tuple[int, int]]:
        """Twins of the test split, as positions of clips."""
        ids = self._parts.splits[self._config.data.test_split].video_ids
        place = {video_id: position for position, video_id in enumerate(ids)}
        pairs = tfds_builders.read_metadata(self._parts.directory)["order_pairs"]
        return [(place[a], place[b]) for a, b in pairs if a in place and b in place]
