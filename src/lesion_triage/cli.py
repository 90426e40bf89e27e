"""The command line: one table of verbs. Each imports its package when it runs: ``--help`` needs no torch."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from lesion_triage import __version__
from lesion_triage.errors import ConfigError, LesionTriageError


@dataclass(frozen=True)
class Verb:
    """One subcommand: its help, its arguments, and what it does (which returns the exit status)."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def _lazy_verb(text: str, module: str, add_arguments: str = "add_arguments", main: str = "main") -> Verb:
    """A verb whose functions are in a module of a package."""
    return Verb(text, _lazy(module, add_arguments), _lazy(module, main))


def _lazy(module: str, function: str) -> Callable[[Any], Any]:
    """A function of a module, which is imported when the function is called."""

    def call(argument: Any) -> Any:
        return getattr(import_module(f"lesion_triage.{module}"), function)(argument)

    return call


def _configured_arguments(parser: argparse.ArgumentParser) -> None:
    from lesion_triage.runs import RUNS

    parser.add_argument("config", type=Path, help="YAML file, such as configs/ham10000.yaml")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the dataset")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override one key, such as --set train.epochs=3; may be given again",
    )
    parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help="folder of all runs (%(default)s)"
    )


def _pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    _configured_arguments(parser)
    parser.set_defaults(fresh=False, resume=False)


def _first_stage_arguments(parser: argparse.ArgumentParser) -> None:
    """For verbs that may start a new run folder."""
    _pipeline_arguments(parser)
    parser.add_argument("--fresh", action="store_true", help="start a new run folder and reuse nothing")


def _training_arguments(parser: argparse.ArgumentParser) -> None:
    _first_stage_arguments(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="refuse to start training from nothing; an interrupted run is resumed with or without this",
    )


def _run_pipeline(arguments: argparse.Namespace) -> int:
    from lesion_triage import config_file, pipeline

    if arguments.fresh and arguments.resume:
        raise ConfigError("--fresh starts training over, and --resume refuses to; give only one.")
    loaded = config_file.load(arguments.config, arguments.overrides, arguments.data_root)
    if pipeline.is_nonzero_rank():
        pipeline.join_training(arguments.verb, loaded)
    else:
        pipeline.run_verb(arguments.verb, loaded, arguments.runs, arguments.fresh, arguments.resume)
    return 0


def _audit_arguments(parser: argparse.ArgumentParser) -> None:
    _first_stage_arguments(parser)
    parser.add_argument(
        "--tables-only",
        action="store_true",
        help="open no picture; the findings go to a folder of their own, audit_tables",
    )
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="also write a page with example photographs, for reading on this machine only",
    )


def _audit(arguments: argparse.Namespace) -> int:
    from lesion_triage import config_file, pipeline

    if arguments.tables_only and arguments.pictures:
        raise ConfigError(
            "--pictures shows pictures that were opened, and --tables-only opens none; give only one."
        )
    loaded = config_file.load(arguments.config, arguments.overrides, arguments.data_root)
    pipeline.run_verb(
        "audit",
        loaded,
        arguments.runs,
        arguments.fresh,
        show_pictures=arguments.pictures,
        tables_only=arguments.tables_only,
    )
    return 0


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    from lesion_triage.sweep import command

    _configured_arguments(parser)
    command.add_arguments(parser)


VERBS: dict[str, Verb] = {
    "datasets": _lazy_verb(
        "0. the public datasets: what they are, how to get them, what a copy lacks", "data.catalogue.command"
    ),
    "run": Verb(
        "the whole pipeline; starts at the first stage whose inputs changed",
        _training_arguments,
        _run_pipeline,
    ),
    "manifest": Verb(
        "1. list the pictures, hash them, name the unusable ones", _first_stage_arguments, _run_pipeline
    ),
    "split": Verb(
        "2. split patients or lesions into train, validation, calibration and test",
        _first_stage_arguments,
        _run_pipeline,
    ),
    "audit": Verb(
        "look for leaks and shortcuts: in the data, and in the model where there is one",
        _audit_arguments,
        _audit,
    ),
    "train": Verb(
        "3. fine-tune, write the ONNX graph, score validation and calibration with it",
        _training_arguments,
        _run_pipeline,
    ),
    "calibrate": Verb("4. fit the calibrator, certify the threshold", _pipeline_arguments, _run_pipeline),
    "export": Verb("5. compare ONNX with torch, seal the bundle", _pipeline_arguments, _run_pipeline),
    "evaluate": Verb(
        "6. open the test split on the sealed bundle, write the report", _pipeline_arguments, _run_pipeline
    ),
    "score": _lazy_verb("7. score photographs with a bundle, one JSON line per case", "score"),
    "score-batch": _lazy_verb("score a backlog of cases, one row for each, in parquet", "backlog.command"),
    "keygen": _lazy_verb(
        "make a pair of keys for signing bundles", "sign", "add_keygen_arguments", "keygen_main"
    ),
    "sign": _lazy_verb(
        "sign a bundle, so that a server can tell who made it", "sign", "add_sign_arguments", "sign_main"
    ),
    "verify": _lazy_verb(
        "check a bundle's hashes, signature and self-test", "sign", "add_verify_arguments", "verify_main"
    ),
    "splits": _lazy_verb(
        "publish a run's splits without names, or check them against published ones", "data.published_splits"
    ),
    "certificate": _lazy_verb("print what a bundle's certificate says, on one page", "clinic.certificate"),
    "plan": _lazy_verb(
        "how many confirmed cases a certificate needs, what it promises, what it costs", "clinic.plan"
    ),
    "recertify": _lazy_verb("certify a bundle again on a clinic's own confirmed cases", "clinic.recertify"),
    "tally": _lazy_verb(
        "count one clinic's misses, for a certificate that several clinics share", "clinic.tally"
    ),
    "pool": _lazy_verb("certify on the counts of several clinics", "clinic.pool"),
    "watch": _lazy_verb("test a certificate in use, on outcomes as they become known", "clinic.watch"),
    "queue": _lazy_verb("simulate the reading queue: bands, flags, deadlines", "clinic.queue"),
    "proof": _lazy_verb(
        "test the certificate's promise on recorded scores, many thousands of times", "proof.command"
    ),
    "robustness": _lazy_verb(
        "corrupt a run's test photographs, show it unrelated ones, report who is missed", "robustness"
    ),
    "sweep": replace(
        _lazy_verb("search hyper-parameters on the validation split", "sweep.command"),
        add_arguments=_sweep_arguments,
    ),
    "transfer": _lazy_verb("measure a bundle on another dataset, where its certificate is void", "transfer"),
    "report": _lazy_verb(
        "write a run's report again, compare it with another run, print it as PDF", "report"
    ),
    "compare": _lazy_verb(
        "compare two runs' bundles on the test cases that they share, with paired intervals", "compare"
    ),
    "cards": _lazy_verb(
        "model card, dataset card and reporting checklists of a run, with blanks marked", "cards.command"
    ),
    "change-record": _lazy_verb(
        "compare a new bundle with the one in use: what changed, and is it worse", "cards.change_command"
    ),
    "promote": _lazy_verb(
        "point champion or challenger in MLflow's registry at a bundle", "promotion.command"
    ),
    "reproduce": _lazy_verb("repeat a recorded experiment and compare it cell by cell", "reproduce.command"),
    "tables": _lazy_verb(
        "fill the marked numbers of all pages from the records, or list those that drifted", "tables.command"
    ),
    "summary": _lazy_verb("one table of several seeds' results.json", "evaluate.summary"),
    "demo": _lazy_verb("the whole pipeline on drawn pictures, then three cases over HTTP", "demo"),
}


def parser(requested_verb: str | None = None) -> argparse.ArgumentParser:
    """The argument parser of ``lesion-triage``; the verbs of the pipeline in order.

    Args:
        requested_verb: the one verb whose arguments are added, so that no other package is imported. None:
            all verbs.
    """
    root_parser = argparse.ArgumentParser(
        prog="lesion-triage",
        description="Train, certify, export and try a skin-lesion triage model. It orders a queue; it never "
        "diagnoses. To serve a bundle: triage-server --bundle DIR.",
    )
    root_parser.add_argument("--version", action="version", version=f"lesion-triage {__version__}")
    verbs = root_parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        verb_parser = verbs.add_parser(name, help=verb.help, description=verb.help)
        if requested_verb in (None, name):
            verb.add_arguments(verb_parser)
    return root_parser


_EXTRAS = {"pyarrow": "batch", "ray": "ray"}
"""Package -> extra that installs it, where that is not ``train``."""
_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status; docs/configuration.md lists them.

    0: done. 1: done, and the answer is no (some verbs). 2: refused, explained in one sentence. 3: not
    compared (``reproduce``). 130, 143 or 141: interrupted, or the reader of the output closed it.
    """
    words = sys.argv[1:] if argv is None else argv
    requested_verb = next((word for word in words if word in VERBS), "")
    try:
        arguments = parser(requested_verb).parse_args(words)  # may import the verb's package
        status = VERBS[arguments.verb].run(arguments)
        _flush_output()  # here, where output that cannot be written still becomes a status
        return status
    except LesionTriageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.startswith(("lesion_triage", "triage_server")):
            raise
        extra = "train,sweep" if requested_verb == "sweep" else _EXTRAS.get(missing, "train")
        advice = f"install the extra [{extra}]; in a checkout: pip install '.[{extra}]'."
        print(f"'{requested_verb}' needs {missing}: {advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print("interrupted; the same command continues from here.", file=sys.stderr)
        return getattr(interrupt, "status", 130)  # 143 after SIGTERM
    except BrokenPipeError:
        return 128 + signal.SIGPIPE  # not 0: the verb may have stopped halfway, as ``promote | head`` does
    except (OSError, RuntimeError) as error:
        if (sentence := _file_sentence(error)) is None:
            raise
        print(sentence, file=sys.stderr)
        return 2
    finally:
        _discard_unwritten_output()


def _file_sentence(error: OSError | RuntimeError) -> str | None:
    """What a person is told of a file that cannot be used; None: the error is not about a file."""
    # Up to Python 3.12, pathlib replaces the system's error about a link to itself by a RuntimeError.
    cause = error.__context__ if isinstance(error, RuntimeError) else error
    if not isinstance(cause, OSError) or (cause is not error and cause.errno != errno.ELOOP):
        return None
    if cause.errno in _DISK_FULL_ERRNOS:
        return (
            f"{cause.filename or 'output'}: {cause.strerror}; free some room and run the same command again."
        )
    return cause.filename and f"{cause.filename}: {cause.strerror}; name another, or permit it."


def _flush_output() -> None:
    print(end="", flush=True)  # does nothing if standard output is closed


def _discard_unwritten_output() -> None:
    """Keep the interpreter from failing again, as it ends, on output that cannot be written."""
    try:
        _flush_output()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
