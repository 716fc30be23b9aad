"""Train and evaluate: `python -m ncl_jax.main --config=configs/demo.py --workdir=runs/demo`."""

from absl import app, flags

from ncl_jax.cli import train

if __name__ == "__main__":
    flags.adopt_module_key_flags(train)  # so that --help lists them
    app.run(train.main, flags_parser=train.parse_flags)
