"""Train and evaluate: `python -m ncl_jax.main --config=configs/demo.py --workdir=runs/demo`."""

import contextlib
import difflib
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import ml_collections
from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

from ncl_jax.cli import versions
from ncl_jax.errors import InputError, did_you_mean
from ncl_jax.experiment import renamed
from ncl_jax.progress import announced

DEMO = "  python -m ncl_jax.main --config=configs/demo.py --workdir=runs/demo"

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, as configs/demo.py")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default runs/<config.name>. An existing run is resumed."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, for a job of several processes started by hand"
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes the job has")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0")
_LOST = (
    "the connection to another process of this job is lost ({}); look for the cause in "
    "the output of that process, then start all processes again to resume from the last checkpoint"
)
_MEMORY = (
    "the device is out of memory ({}). To need less, set batch.micro_batch_size (pairs that "
    "the towers see at a time), model.remat or model.dtype=bfloat16, or lower train.batch_size or, "
    "if the run was embedding, eval.batch_size"
)


class UserError(Exception):
    """A wrong input; its one message is all that is printed."""


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parse flags; every mistake is one sentence and exit code 2."""
    argv = ["--help" if argument == "-h" else argument for argument in argv]
    try:
        versions.check()
        _check_config_file(argv)
        with _help_is_no_failure(argv):
            rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise UserError(f"unexpected arguments {' '.join(rest[1:])}: all options start with --")
        if _CONFIG.value is None:
            raise UserError("--config is missing, for example --config=configs/demo.py")
        _check_config(_CONFIG.value)
    except (flags.Error, ValueError, OSError, SyntaxError, UserError) as error:
        stop(_flag_message(error))
    except (AttributeError, KeyError, TypeError) as error:
        if not _raised_in(error, "ml_collections"):
            raise  # a bug in a config file, which its traceback shows
        stop(_flag_message(error))
    return rest


def _check_config_file(argv: Sequence[str]) -> None:
    """Refuses what is no file of Python before it is run as one: a README, a JSON file, a folder.

    Raises:
      UserError: naming the config that may be meant.
    """
    for place, argument in enumerate(argv):
        name, given, value = argument.partition("=")
        if name.lstrip("-") != "config" or not name.startswith("-"):
            continue
        path = (value if given else "".join(argv[place + 1 : place + 2])).partition(":")[0]
        if (path or given) and not (path.endswith(".py") and os.path.isfile(path)):
            known = {file.stem: file for file in pathlib.Path("configs").glob("*.py")}
            near = difflib.get_close_matches(pathlib.Path(path).stem, known, 1)
            raise UserError(
                f"--config: expected a .py file with get_config, as configs/demo.py, got {path!r}"
                + "".join(f"; did you mean {known[name]}?" for name in near)
            )


def _check_config(config: object) -> None:
    """Refuses what a function `get_config` returned, if it is no config with a name."""
    if isinstance(config, ml_collections.ConfigDict) or _is_of(config, "ml_collections"):
        _ = config.name  # type: ignore[attr-defined]  # raises the error of a failed loading
    else:
        raise UserError(
            "--config: expected a file whose get_config returns an ml_collections.ConfigDict, "
            f"got {type(config).__name__}; start from configs/demo.py"
        )


@contextlib.contextmanager
def _help_is_no_failure(argv: Sequence[str]) -> Iterator[None]:
    """Absl ends `--help` with code 1."""
    try:
        yield
    except SystemExit as ending:
        given = {argument.lstrip("-").partition("=")[0] for argument in argv}
        sys.exit(0 if given & {"help", "helpfull", "helpshort", "helpxml", "?"} else ending.code)


def _raised_in(error: BaseException, package: str) -> bool:
    """Whether an error comes from a package itself, not from what it called."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).split(".")[0] == package


def _is_of(value: object, package: str) -> bool:
    return type(value).__module__.split(".")[0] == package


def main(argv: Sequence[str]) -> None:
    """One call into `run_experiment`, which prints user errors without a traceback."""
    del argv
    quiet_libraries()
    config = _CONFIG.value
    workdir = epath.Path(_WORKDIR.value or f"runs/{config.name}")
    # Imported late: a mistyped flag should not have to wait for JAX.
    with announced(f"{config.name} -> {workdir}: importing JAX, Flax and Orbax"):
        from ncl_jax.distributed import runtime, sync
        from ncl_jax.experiment.run import check_same_config, run_experiment
        from ncl_jax.experiment.seeds import run_seeds
        from ncl_jax.experiment.workdir import owned

    flagged = runtime.Job(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    try:
        runtime.join(runtime.find_job(flagged, os.environ), config.train.peer_timeout)
        if not runtime.is_first():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the story is told once
        with owned(workdir):
            check_same_config(config)  # before one goes another way than the others
            run = run_experiment if config.seeds == 1 else run_seeds
            summary = run(config, workdir)
        sync.run_on_primary("end", lambda: tell(config, workdir, summary))
        runtime.leave()
    except KeyboardInterrupt:
        stop("interrupted; run the same command again to resume", 130)
    except Exception as error:
        _stop_for(error, config)


def _stop_for(error: Exception, config: Any) -> NoReturn:
    """Ends the process as an error of the run asks for."""
    import jax

    from ncl_jax.distributed import runtime

    if isinstance(error, TimeoutError | runtime.NotFoundError):
        stop(str(error), runtime.RETRY)
    if lost := runtime.lost_peer(error):
        stop(_LOST.format(_first_line(lost)), runtime.RETRY)
    if runtime.out_of_memory(error):
        stop(_MEMORY.format(_first_line(error)))
    if isinstance(error, FileNotFoundError) and config.data.manual_dir in str(error):
        stop(f"{error}\n\nNo data at hand? The demo needs none:\n{DEMO}")
    if isinstance(error, InputError | OSError | FloatingPointError):
        stop(str(error))
    # The process ends here, so that the others of its job do not take it for a lost peer.
    traceback.print_exception(error)
    if isinstance(error, jax.errors.JaxRuntimeError):
        stop("JAX failed, which this program cannot recover from; report it if it persists", 1)
    stop("this is a fault of the program; retrying will not help; please report it", 1)


def quiet_libraries() -> None:
    """Errors of libraries are raised to us and reported once, by `stop`."""
    logging.set_verbosity(logging.FATAL)

    def hook(unraisable: Any) -> None:
        # When a save fails, TensorStore complains so for each of its other writes.
        if "Event loop is closed" not in str(unraisable.exc_value):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = hook


def tell(config: Any, workdir: epath.Path, summary: dict[str, Any] | None) -> None:
    """What came of the run: its tables, or that it was stopped on request."""
    from ncl_jax.experiment import results
    from ncl_jax.report import runs, tables

    if summary is None:
        print(f"stopped on request; checkpoint saved in {workdir}; run the same command to resume")
        return
    if config.seeds != 1:
        print("\n".join(t.markdown() for t in tables.results(runs.group(runs.load([workdir])))))
    else:
        results.show(summary)
    file, _, _ = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    print(_whats_next(file, workdir, "infonce" if config.loss.name == "ncl" else "ncl"))


def stop(message: str, code: int = 2) -> NoReturn:
    """Print the message and leave: with 2 something must change, with 75 it is worth a retry."""
    with contextlib.suppress(OSError):  # the disk may be full that this goes to
        print(f"ncl_jax: {message}", file=sys.stderr)
    if runtime := sys.modules.get("ncl_jax.distributed.runtime"):
        # At a normal exit JAX would wait for processes that are waiting for this one, and a thread
        # that is still decoding would end it with an abort. What had to be saved is.
        runtime.abandon(code)
    sys.exit(code)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")[:200]


def _flag_message(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if "has no attribute 'get_config'" in str(error):
        return "the file of --config is no config: it has no function get_config"
    if isinstance(error, SyntaxError):
        return f"the file of --config is not Python: {error.filename}, line {error.lineno}"
    if isinstance(error, KeyError | AttributeError):
        name = re.search(r"\w+", str(error.args[0]))
        return _unknown_key(name[0] if name else "")
    # ml_collections tells the story of its attempts; the cause is the last line.
    cause = (str(error).strip() or repr(error)).splitlines()[-1].strip()
    return f"the flags cannot be used: {cause.removeprefix('ValueError: ')}"


def _unknown_key(name: str) -> str:
    """The message for a key that the config does not have, with its new name or the nearest one."""
    given = (re.match(r"--?config\.([\w.]+)", argument) for argument in sys.argv)
    paths = [match[1] for match in given if match and name in match[1].split(".")]
    key = paths[0] if paths else name
    if key in renamed.KEYS:
        return f"config.{key} is now called config.{renamed.KEYS[key]}"
    hint = did_you_mean(key, _known_keys())
    return f"the config has no key '{name}'{hint or '; configs/common.py lists all keys'}"


def _known_keys() -> list[str]:
    """All keys of the config file that the command line names."""
    files = [a.partition("=")[2] for a in sys.argv if re.match(r"--?config=", a)]
    with contextlib.suppress(Exception):  # it was read before, but whatever happens is no news
        parsed: Any = flags.FLAGS["config"].parser.parse(files[-1])
        return list(flat_keys(parsed.to_dict()))
    return []


def flat_keys(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of a nested dict."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _whats_next(file: str, workdir: epath.Path, other: str) -> str:
    return (
        f"results: {workdir}/results.json   checkpoints: {workdir}/checkpoints\n"
        f"curves:  {workdir}/metrics.jsonl, or: pip install tensorboard && "
        f"tensorboard --logdir={workdir}/tensorboard\n"
        f"report:  python -m ncl_jax.cli.report html {workdir}\n"
        f"next:    the other loss, --config={file}:loss={other} "
        f"--workdir={workdir}-{other}; or another seed, --config={file}:seed=1 "
        f"--workdir={workdir}-seed1"
    )


def start(argv: Sequence[str]) -> None:
    """Runs the command line `argv`, program first; ends the process."""
    run(main, argv, __name__, __doc__)


def run(command: Callable[[Sequence[str]], None], argv: Sequence[str], module: str,
        doc: str | None) -> None:  # fmt: skip
    """`app.run` of a command whose flags and `--help` are those of `module`, not of a script."""
    sys.modules["__main__"].__doc__ = doc
    for name in {__name__, module}:
        for flag in flags.FLAGS.get_flags_for_module(name):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(command, argv=list(argv), flags_parser=parse_flags)


if __name__ == "__main__":
    start(sys.argv)
