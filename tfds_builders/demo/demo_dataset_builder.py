"""The embedded demo corpus: small rendered clips in the layout of MSVD."""

import dataclasses
from typing import Any, ClassVar

import tqdm
from etils import epath

from tfds_builders import clip_builder, layout, listed_clips
from tfds_builders.demo import corpus


@dataclasses.dataclass(eq=False)
class DemoConfig(clip_builder.VideoConfig):
    """Adds what the corpus is rendered from.

    Attributes:
      short_side: the clips are 64 pixels wide and high.
      train: clips of the train split.
      val: of the val split.
      test: of the test split.
      seed: of everything random.
    """

    short_side: int = 64
    train: int = corpus.Size().train
    val: int = corpus.Size().val
    test: int = corpus.Size().test
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.name += f"_{self.train}x{self.val}x{self.test}_seed{self.seed}"


class Builder(clip_builder.ClipBuilder):
    """Builds the demo corpus from the files that `corpus.write_corpus` renders."""

    CONFIG = DemoConfig
    GENERATED = True
    BUILDER_CONFIGS: ClassVar[list[clip_builder.VideoConfig]] = [DemoConfig()]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
Expected below manual_dir:
  demo/
    videos/                 clip00000.mp4 and so on
    captions.json           clip -> captions
    train_list.txt          one clip id per line
    val_list.txt
    test_list.txt
    order_pairs.txt         two clip ids per line
What to do: `tfds_builders.prepare('demo', manual_dir, data_dir)` renders all of it.
"""

    @classmethod
    def provide_files(cls, manual_dir: epath.Path, config: Any) -> None:
        """Renders the corpus below `manual_dir` unless it is there."""
        size = corpus.Size(config.train, config.val, config.test)
        with tqdm.tqdm(total=sum(size), desc="rendering demo", unit="clip", leave=False) as bar:
            corpus.write_corpus(manual_dir / "demo", size, config.seed, bar.update)

    @classmethod
    def read_layout(cls, folder: epath.Path, config: Any) -> layout.Layout:
        """Reads the rendered files."""
        return listed_clips.read_layout(folder, cls.MANUAL_DOWNLOAD_INSTRUCTIONS)
