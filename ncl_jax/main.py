"""Train and evaluate: `python -m ncl_jax.main --config=configs/demo.py --workdir=runs/demo`."""

import sys

from ncl_jax.cli import train

if __name__ == "__main__":
    train.start(sys.argv)
