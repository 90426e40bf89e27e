"""The command line: one table of verbs. A room is imported inside its verb, so ``--help`` needs no torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesion_triage import __version__
from lesion_triage.errors import LesionTriageError

RUNS = Path("experiments/runs")


@dataclass(frozen=True)
class Verb:
    """One subcommand: its help, its arguments, and what it does (which returns the exit status)."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    act: Callable[[argparse.Namespace], int]


VerbFunctions = tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]


def _lazy_verb(text: str, load_functions: Callable[[], VerbFunctions]) -> Verb:
    """A verb whose room names its arguments itself; the room is imported when the verb is used."""

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        load_functions()[0](parser)

    def act(arguments: argparse.Namespace) -> int:
        return load_functions()[1](arguments)

    return Verb(text, add_arguments, act)


def _plan() -> VerbFunctions:
    from lesion_triage.clinic import plan

    return plan.add_arguments, plan.act


def _queue() -> VerbFunctions:
    from lesion_triage.clinic import queue

    return queue.add_arguments, queue.act


def _recertify() -> VerbFunctions:
    from lesion_triage.clinic import recertify

    return recertify.add_arguments, recertify.act


def _tally() -> VerbFunctions:
    from lesion_triage.clinic import pool

    return pool.add_tally_arguments, pool.act_tally


def _pool() -> VerbFunctions:
    from lesion_triage.clinic import pool

    return pool.add_pool_arguments, pool.act_pool


def _certificate() -> VerbFunctions:
    from lesion_triage.clinic import certificate

    return certificate.add_arguments, certificate.act


def _splits() -> VerbFunctions:
    from lesion_triage.data import published_splits

    return published_splits.add_arguments, published_splits.act


def _cards() -> VerbFunctions:
    from lesion_triage.cards import command

    return command.add_arguments, command.act


def _change_record() -> VerbFunctions:
    from lesion_triage.cards import change_command

    return change_command.add_arguments, change_command.act


def _promote() -> VerbFunctions:
    from lesion_triage.promotion import command

    return command.add_arguments, command.act


def _proof() -> VerbFunctions:
    from lesion_triage.proof import command

    return command.add_arguments, command.act


def _reproduce() -> VerbFunctions:
    from lesion_triage.reproduce import command

    return command.add_arguments, command.act


def _robustness() -> VerbFunctions:
    from lesion_triage import robustness

    return robustness.add_arguments, robustness.act


def _transfer() -> VerbFunctions:
    from lesion_triage import transfer

    return transfer.add_arguments, transfer.act


def _report() -> VerbFunctions:
    from lesion_triage import report

    return report.add_arguments, report.act


def _compare() -> VerbFunctions:
    from lesion_triage import compare

    return compare.add_arguments, compare.act


def _tables() -> VerbFunctions:
    from lesion_triage.tables import command

    return command.add_arguments, command.act


def _datasets() -> VerbFunctions:
    from lesion_triage.data.catalogue import command

    return command.add_arguments, command.act


def _keygen() -> VerbFunctions:
    from lesion_triage import sign

    return sign.add_keygen_arguments, sign.act_keygen


def _score_batch() -> VerbFunctions:
    from lesion_triage.backlog import command

    return command.add_arguments, command.act


def _sign() -> VerbFunctions:
    from lesion_triage import sign

    return sign.add_sign_arguments, sign.act_sign


def _verify() -> VerbFunctions:
    from lesion_triage import sign

    return sign.add_verify_arguments, sign.act_verify


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    _configured_arguments(parser)
    _sweep()[0](parser)


def _sweep() -> VerbFunctions:
    from lesion_triage.sweep import command

    return command.add_arguments, command.act


def _run_sweep(arguments: argparse.Namespace) -> int:
    return _sweep()[1](arguments)


def _configured_arguments(parser: argparse.ArgumentParser) -> None:
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
    from lesion_triage.errors import ConfigError

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
    from lesion_triage.errors import ConfigError

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


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="folder of a sealed bundle")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="photograph: JPEG, PNG or WebP")
    parser.add_argument(
        "--one-case", action="store_true", help="all photographs show one lesion; without it each is a case"
    )
    parser.add_argument(
        "--history", default="{}", metavar="JSON", help='such as {"bleeding": true, "age_years": 61}'
    )
    parser.add_argument("--language", default="en", metavar="TAG", help="language of all texts (%(default)s)")
    parser.add_argument(
        "--catalogues", type=Path, metavar="DIR", help="a site's own message catalogues, see docs/messages.md"
    )
    parser.add_argument(
        "--note", action="store_true", help="print the note for the clinical record instead of JSON"
    )


def _score(arguments: argparse.Namespace) -> int:
    from lesion_triage import score

    return score.score(
        arguments.bundle,
        arguments.images,
        arguments.one_case,
        arguments.history,
        arguments.language,
        arguments.catalogues,
        arguments.note,
    )


def _summary_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, nargs="+", help="results.json of evaluations on the same split")
    parser.add_argument("--deals", action="store_true", help="each run has a split of its own")


def _summary(arguments: argparse.Namespace) -> int:
    from lesion_triage.evaluate.summary import summary

    print(summary(arguments.results, deals=arguments.deals), end="")
    return 0


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="a configuration with drawn data, configs/demo.yaml")
    parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help="folder of all runs (%(default)s)"
    )


def _demo(arguments: argparse.Namespace) -> int:
    from lesion_triage import demo

    return demo.demo(arguments.config, arguments.runs)


_PIPELINE_VERBS = {
    "run": "the whole pipeline; starts at the first stage whose inputs changed",
    "manifest": "1. list the pictures, hash them, name the unusable ones",
    "split": "2. split patients or lesions into train, validation, calibration and test",
    "audit": "look for leaks and shortcuts: in the data, and in the model where there is one",
    "train": "3. fine-tune, write the ONNX graph, score validation and calibration with it",
    "calibrate": "4. fit the calibrator, certify the threshold",
    "export": "5. compare ONNX with torch, seal the bundle",
    "evaluate": "6. open the test split on the sealed bundle, write the report",
}
_STAGE_ARGUMENTS = {
    "run": _training_arguments,
    "manifest": _first_stage_arguments,
    "split": _first_stage_arguments,
    "train": _training_arguments,
}
VERBS: dict[str, Verb] = {
    "datasets": _lazy_verb(
        "0. the public datasets: what they are, how to get them, what a copy lacks", _datasets
    ),
    **{
        name: Verb(text, _STAGE_ARGUMENTS.get(name, _pipeline_arguments), _run_pipeline)
        for name, text in _PIPELINE_VERBS.items()
    },
    "audit": Verb(_PIPELINE_VERBS["audit"], _audit_arguments, _audit),  # it keeps its place in the pipeline
    "score": Verb("7. score photographs with a bundle, one JSON line per case", _score_arguments, _score),
    "score-batch": _lazy_verb("score a backlog of cases, one row for each, in parquet", _score_batch),
    "keygen": _lazy_verb("make a pair of keys for signing bundles", _keygen),
    "sign": _lazy_verb("sign a bundle, so that a server can tell who made it", _sign),
    "verify": _lazy_verb("check a bundle's hashes, signature and self-test", _verify),
    "splits": _lazy_verb(
        "publish a run's splits without names, or check them against published ones", _splits
    ),
    "certificate": _lazy_verb("print what a bundle's certificate says, on one page", _certificate),
    "plan": _lazy_verb(
        "how many confirmed cases a certificate needs, what it promises, what it costs", _plan
    ),
    "recertify": _lazy_verb("certify a bundle again on a clinic's own confirmed cases", _recertify),
    "tally": _lazy_verb("count one clinic's misses, for a certificate that several clinics share", _tally),
    "pool": _lazy_verb("certify on the counts of several clinics", _pool),
    "queue": _lazy_verb("simulate the reading queue: bands, flags, deadlines", _queue),
    "proof": _lazy_verb("test the certificate's promise on recorded scores, many thousands of times", _proof),
    "robustness": _lazy_verb(
        "corrupt a run's test photographs, show it unrelated ones, report who is missed", _robustness
    ),
    "sweep": Verb("search hyper-parameters on the validation split", _sweep_arguments, _run_sweep),
    "transfer": _lazy_verb("measure a bundle on another dataset, where its certificate is void", _transfer),
    "report": _lazy_verb("write a run's report again, compare it with another run, print it as PDF", _report),
    "compare": _lazy_verb(
        "compare two runs' bundles on the test cases that they share, with paired intervals", _compare
    ),
    "cards": _lazy_verb(
        "model card, dataset card and reporting checklists of a run, with blanks marked", _cards
    ),
    "change-record": _lazy_verb(
        "compare a new bundle with the one in use: what changed, and is it worse", _change_record
    ),
    "promote": _lazy_verb("point champion or challenger in MLflow's registry at a bundle", _promote),
    "reproduce": _lazy_verb("repeat a recorded experiment and compare it cell by cell", _reproduce),
    "tables": _lazy_verb(
        "fill the marked numbers of all pages from the records, or list those that drifted", _tables
    ),
    "summary": Verb("one table of several seeds' results.json", _summary_arguments, _summary),
    "demo": Verb("the whole pipeline on drawn pictures, then three cases over HTTP", _demo_arguments, _demo),
}


def parser(requested_verb: str | None = None) -> argparse.ArgumentParser:
    """The argument parser of ``lesion-triage``; the verbs of the pipeline in order.

    Args:
        requested_verb: the one verb whose arguments are added, so that no other room is imported; None: all
            verbs.
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status; docs/configuration.md lists them.

    0: done. 1: done, and the answer is no (some verbs). 2: refused, explained in one sentence. 3: not
    compared (``reproduce``). 130 or 143: interrupted.
    """
    words = sys.argv[1:] if argv is None else argv
    requested_verb = next((word for word in words if word in VERBS), "")
    try:
        arguments = parser(requested_verb).parse_args(words)  # a verb may import its room to describe itself
        return VERBS[arguments.verb].act(arguments)
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
