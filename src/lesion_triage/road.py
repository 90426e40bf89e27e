"""The road from pictures to a report, stage by stage. Each stage imports its own room, and only then.

Stages talk through the files of the run folder; see ``runs`` for when one is repeated.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lesion_triage import runs
from lesion_triage.config import DATA_ROOT_VARIABLE, Config, Roots
from lesion_triage.console import bar, say
from lesion_triage.errors import RunError
from lesion_triage.runs import Run
from lesion_triage.tracking import Tracker, environment, flat


@dataclass(frozen=True)
class Stage:
    """One step: what it needs, what decides its result, what it leaves behind."""

    name: str
    needs: tuple[str, ...]
    decides: Callable[[Run], Any]
    """The part of the configuration (and of the disk) that the result depends on."""
    outputs: tuple[str, ...]
    work: Callable[[Run, Tracker], None]
    retell: Callable[[Run, Tracker], None] = lambda run, tracker: None
    """Tell the tracker of a stage that another run has done."""
    go_on: Callable[[Run, bool], None] = lambda run, must: None
    """Find what an interrupted attempt left; raise RunError if there is nothing and there must be."""
    scratch: tuple[str, ...] = ()
    """What an interrupted attempt goes on from; worthless once the stage is recorded."""


def require_data(config: Config) -> None:
    """Raise RunError unless the dataset's folder is given and there; drawn data need none."""
    if config.data.source == "synthetic":
        return
    for name, root in config.data.folders.items():
        if root is None:
            which = f" of {name}" if config.data.mixture else ""
            raise RunError(
                f"where are the pictures{which}? Give --data-root DIR or set {DATA_ROOT_VARIABLE}."
            )
        if not root.is_dir():
            raise RunError(
                f"{root}: no such folder; --data-root names the folder of the dataset, or of a mixture the "
                "folder in which each dataset has one of its name."
            )


def data_root(run: Run) -> Roots:
    """Folder of the dataset, or of each part of a mixture; drawn pictures live in the cache."""
    data = run.config.data
    if data.source == "synthetic":
        key = runs.inputs_sha256(synthetic=data.synthetic.model_dump())[:16]
        return run.cache / f"synthetic-{key}"
    folders = {name: folder for name, folder in data.folders.items() if folder is not None}
    assert len(folders) == len(data.folders)
    return folders if data.source == "mixture" else folders[data.source]


def _folders(run: Run) -> Mapping[str, Path]:
    """The same by name, also where there is one."""
    root = data_root(run)
    return {"": root} if isinstance(root, Path) else root


def _manifest_inputs(run: Run) -> Any:
    from lesion_triage.data import manifest

    data = run.config.data
    seen = None
    if data.source != "synthetic":
        seen = {name: runs.tree_fingerprint(folder) for name, folder in _folders(run).items()}
    return data.identity(), seen, manifest.FORMAT


def _manifest(run: Run, tracker: Tracker) -> None:
    from lesion_triage.data import manifest

    drawn = run.config.data.source == "synthetic"
    with bar("drawing synthetic lesions" if drawn else "reading pictures") as tick:
        made = manifest.build(run.config.data, data_root(run), tick, run.config.pixels)
    made.write(run.folder)
    for reason, names in made.dropped.items():
        say(f"  dropped {len(names)}: {reason}")
    for remark, names in made.findings.items():
        say(f"  kept {len(names)}: {remark}")
    cases = {record.case_id: bool(record.needs_in_person) for record in made.records}
    say(f"  {len(made.records)} photographs of {len(cases)} cases, {sum(cases.values())} need in-person care")
    _tell_manifest(run, tracker)


def _tell_manifest(run: Run, tracker: Tracker) -> None:
    from lesion_triage.data import manifest

    made, digest = manifest.read(run.folder)
    tracker.params({"manifest_sha256": digest})
    cases = {record.case_id for record in made.records}
    tracker.metrics({"data.images": len(made.records), "data.cases": len(cases)})


def _split(run: Run, tracker: Tracker) -> None:
    from lesion_triage.data import manifest, split

    known, digest = manifest.read(run.folder)
    made = split.split(known, digest, run.config.split)
    split.prove_disjoint(known, made)
    made.write(run.folder)
    for name in split.SPLITS:
        dealt = records(run, name)
        cases = {record.case_id: bool(record.needs_in_person) for record in dealt}
        say(f"  {name}: {len(dealt)} photographs, {len(cases)} cases, {sum(cases.values())} positive")
    _tell_split(run, tracker)


def _tell_split(run: Run, tracker: Tracker) -> None:
    from lesion_triage.data import split

    tracker.params({"splits_sha256": _digest(run, "split")})
    for name in split.SPLITS:
        cases = {record.case_id: bool(record.needs_in_person) for record in records(run, name)}
        tracker.metrics({f"data.{name}.cases": len(cases), f"data.{name}.positives": sum(cases.values())})


def _audit_inputs(run: Run) -> Any:
    from lesion_triage.audit import findings

    # The dataset's own tables lie there, and the manifest does not keep all of their columns.
    folders = [folder for folder in _folders(run).values() if folder.is_dir()]
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    seen = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    limits = run.config.pixels.model_dump(exclude={"size_px"})
    return findings.FORMAT, run.config.audit.model_dump(mode="json"), limits, seen


def audited(run: Run) -> Any:
    """What an audit of this run looks at: manifest, splits, root and pixel limits."""
    from lesion_triage.audit import checks
    from lesion_triage.data import manifest, split

    known, digest = manifest.read(run.folder)
    return checks.Data(known, split.read(run.folder, digest)[0], data_root(run), run.config.pixels)


def _audit(run: Run, tracker: Tracker) -> None:
    from lesion_triage.audit import checks, report

    data = audited(run)
    with bar("looking for artefacts") as tick:
        found, seen = checks.audit_data(data, run.config.audit, tick)
    report.write(run.folder / AUDIT, found, run.config.audit, seen, data.manifest)
    _tell_audit(run, tracker)


def _audit_model(run: Run, tracker: Tracker) -> None:
    from lesion_triage import predictions
    from lesion_triage.audit import checks, report

    data = audited(run)
    table, _ = predictions.read(run.folder / "predictions", "validation")
    graph = (run.folder / "model.onnx").read_bytes()
    with bar("covering lesions") as tick:
        found = checks.add_model(report.read(run.folder / AUDIT), data, run.config.audit, graph, table, tick)
    report.write(run.folder / AUDIT_MODEL, found, run.config.audit, None, data.manifest)
    _tell_audit(run, tracker, AUDIT_MODEL)


def _tell_audit(run: Run, tracker: Tracker, where: str = "audit") -> None:
    from lesion_triage.audit import report
    from lesion_triage.audit.findings import Verdict

    found = report.read(run.folder / where)
    for one in found.findings:
        if one.verdict is not Verdict.PASS:
            accepted = ", accepted" if one.accepted else ""
            say(f"  {one.verdict.value}{accepted}: {one.code}: {one.summary}")
    if where == AUDIT_MODEL:
        say(f"  verdict {found.verdict.value}: {run.folder / where / report.PAGE}")
    tracker.tags({f"{where}.verdict": found.verdict.value})
    tracker.artifact(run.folder / where / report.PAGE, where)


def _show_pictures(run: Run) -> None:
    from lesion_triage.audit import report

    page = run.folder / "audit_pictures.html"
    report.write_with_pictures(page, run.folder / AUDIT, audited(run), run.config.audit)
    say(f"  with photographs, for reading on this machine only: {page}")


def refuse_failed_audit(run: Run) -> None:
    """Raise AuditError if the audit of this run's data says fail and the configuration does not accept it."""
    from lesion_triage.audit import findings, report

    found = report.read(run.folder / AUDIT)
    say(f"  verdict {found.verdict.value}: {run.folder / AUDIT / report.PAGE}")
    findings.refuse_failures(found, run.config.audit, str(run.folder / AUDIT / report.PAGE))


def _train_inputs(run: Run) -> Any:
    config = run.config
    weights = config.model.weights
    if weights not in ("hub", "none"):
        path = Path(weights)
        if not path.is_file():
            raise RunError(f"{path}: no such file of weights (model.weights).")
        weights = runs.file_sha256(path)
    network = config.model.model_dump(mode="json", exclude={"weights"})
    return config.seed, config.pixels.model_dump(), network, weights, config.train.recipe()


def _train_key(run: Run) -> str:
    """Hash of all that decides a training: a state with another one is not gone on from."""
    return runs.inputs_sha256(
        decides=_train_inputs(run), manifest=_digest(run, "manifest"), split=_digest(run, "split")
    )


def _train(run: Run, tracker: Tracker) -> None:
    from lesion_triage.bundle.document import canonical_json
    from lesion_triage.bundle.store import write_atomically
    from lesion_triage.data import pixel_cache
    from lesion_triage.train import loop

    _require_positives(run)  # known now, and an hour cheaper to be told before the training than after it
    root = data_root(run)
    pictures = {}
    for name in ("train", "validation"):
        found = records(run, name)
        with bar(f"decoding {name}") as tick:
            pixels = pixel_cache.pictures(found, root, run.config.pixels, _pixel_cache(run), tick)
        pictures[name] = loop.Pictures(found, pixels)
    epochs = run.config.train.epochs

    def on_epoch(line: loop.EpochMetrics) -> None:
        say(
            f"  epoch {line.epoch}/{epochs}: loss {line.loss:.4f}, "
            f"validation AUROC {line.validation_auroc:.4f}, {line.seconds:.0f} s"
        )
        _tell_epoch(asdict(line), tracker)

    with bar("training") as tick, bar("embedding") as embedding:
        listener = loop.Listener(
            on_batch=lambda epoch, done, batches: tick(epoch * batches + done, epochs * batches),
            on_epoch=on_epoch,
            on_embedding=embedding,
            on_note=lambda sentence: say(f"  {sentence}"),
        )
        curve = loop.train(
            run.config, pictures["train"], pictures["validation"], run.folder, _train_key(run), listener
        )

    lines = [asdict(line) for line in curve]
    write_atomically(run.folder / _CURVE, canonical_json(lines).encode())


def _go_on_training(run: Run, must: bool) -> None:
    """Bring here the state of an interrupted training of the same inputs, if another run has one."""
    from lesion_triage.train import state

    key = _train_key(run)
    if state.exists(run.folder, key):
        return
    if other := next((other for other in runs.others(run) if state.exists(other.folder, key)), None):
        run.clear((state.FOLDER,))
        shutil.copytree(other.folder / state.FOLDER, run.folder / state.FOLDER)
        say(f"  training state taken over from {other.folder.name}")
    elif must:
        raise RunError(
            f"{run.folder}: no interrupted training of this configuration, these pictures and these weights "
            "to go on from; leave --resume away to begin one."
        )


def _pixel_cache(run: Run) -> Path | None:
    return run.cache if run.config.train.pixel_cache else None


def _require_positives(run: Run) -> None:
    from lesion_triage.calibrate.certificate import require_enough

    positives = {record.unit_id for record in records(run, "calibration") if record.needs_in_person}
    wanted = run.config.calibrate
    require_enough(len(positives), wanted.target_sensitivity, wanted.confidence)


def _tell_train(run: Run, tracker: Tracker) -> None:
    for line in json.loads((run.folder / _CURVE).read_text(encoding="utf-8")):
        _tell_epoch(line, tracker)


def _tell_epoch(line: dict[str, Any], tracker: Tracker) -> None:
    values = {f"train.{key}": value for key, value in line.items() if key != "epoch"}
    tracker.metrics(values, step=line["epoch"])


def _predict_inputs(run: Run) -> Any:
    from lesion_triage import predictions

    config = run.config
    return predictions.FORMAT, config.export.opset, config.export.views, config.calibrate.quality.model_dump()


def _predict(run: Run, tracker: Tracker) -> None:
    from lesion_triage.bundle.store import write_atomically
    from lesion_triage.calibrate.novelty import fit
    from lesion_triage.data import pixel_cache
    from lesion_triage.export import novelty, onnx_graph
    from lesion_triage.train import checkpoint

    config = run.config
    say("  writing the network as ONNX")
    network = checkpoint.load_checkpoint(run.folder)
    plain = onnx_graph.convert(network, config.pixels.size_px, config.export.views, config.export.opset)
    train = records(run, "train")
    pictures = pixel_cache.pictures(train, data_root(run), config.pixels, _pixel_cache(run))
    with bar("measuring what is familiar") as tick:
        graph = novelty.attach(plain, fit(novelty.levels_of(plain, pictures, tick)))
    write_atomically(run.folder / "model.onnx", graph)
    for name in ("validation", "calibration"):
        _predict_split(run, name, graph).write(run.folder / "predictions")


def _predict_split(run: Run, name: str, graph: bytes) -> Any:
    from lesion_triage.data.predict import predict

    with bar(f"scoring {name} in onnxruntime") as tick:
        return predict(
            graph,
            run.config.pixels,
            run.config.calibrate.quality,
            records(run, name),
            data_root(run),
            split=name,
            manifest_sha256=_digest(run, "manifest"),
            splits_sha256=_digest(run, "split"),
            progress=tick,
        )


def _calibrate_inputs(run: Run) -> Any:
    from lesion_triage.bundle.schema import SCHEMA_VERSION

    return SCHEMA_VERSION, run.config.calibrate.model_dump(mode="json")


def _calibrate(run: Run, tracker: Tracker) -> None:
    from lesion_triage import predictions
    from lesion_triage.bundle.store import timestamp, write_atomically
    from lesion_triage.calibrate import ledger
    from lesion_triage.calibrate.cases import cases_of, cases_sha256
    from lesion_triage.calibrate.policy_fit import Origin, certify
    from lesion_triage.data import manifest

    known, _ = manifest.read(run.folder)
    validation, _ = predictions.read(run.folder / "predictions", "validation")
    calibration, digest = predictions.read(run.folder / "predictions", "calibration")
    _require_positives(run)
    config, book = run.config.calibrate, run.folder.parent.parent / ledger.NAME
    looks = ledger.read(book)
    cases = cases_sha256(cases_of(calibration))
    settings = runs.inputs_sha256(
        calibrate=config.model_dump(mode="json", exclude={"second_look"}), calibration=digest
    )
    repeated = ledger.same_look(looks, cases, calibration.model_sha256, settings)
    before = looks if repeated is None else looks[: looks.index(repeated)]
    earlier = (
        ledger.earlier_looks(before, cases, config.second_look)
        if repeated is None
        else tuple(look for look in before if look.cases_sha256 == cases)
    )
    origin = Origin(
        issued_at=repeated.looked_at if repeated else timestamp(),
        unit="patient" if all(record.patient_id for record in known.records) else "lesion",
        predictions_sha256=digest,
        purpose=repeated.purpose if repeated else config.second_look or "first look",
        ledger=earlier,
        looks_at_these_cases=len(earlier),
    )
    policy, certificate = certify(validation, calibration, config, origin)
    if repeated is None:
        ledger.append(book, ledger.look_of(certificate, settings))
    write_atomically(run.folder / "policy.json", policy.to_json().encode())
    write_atomically(run.folder / "certificate.json", certificate.to_json().encode())
    _tell_certificate(certificate, tracker)


def _tell_certificate(certificate: Any, tracker: Tracker) -> None:
    say(
        f"  threshold {certificate.threshold:.4f} certifies sensitivity >= {certificate.target_sensitivity} "
        f"at {certificate.confidence:.0%} confidence: {certificate.misses_seen} of {certificate.positives} "
        f"positive {certificate.unit}s missed, {certificate.misses_allowed} allowed"
    )
    for row in certificate.groups[1:]:
        what = f"{row.misses_seen} of {row.positives} missed"
        if row.status == "certified":
            say(f"    {row.by} {row.group}: certified, {what}, {row.misses_allowed} allowed")
        else:
            say(f"    {row.by} {row.group}: NOT CERTIFIABLE with {row.positives} of {row.minimum_positives}")
    tracker.metrics(
        {
            "certificate.threshold": certificate.threshold,
            "certificate.positives": certificate.positives,
            "certificate.misses_allowed": certificate.misses_allowed,
            "certificate.sensitivity_lower_bound": certificate.sensitivity_lower_bound,
        }
    )
    tracker.tags({"certificate_id": certificate.certificate_id()})


def _export(run: Run, tracker: Tracker) -> None:
    from lesion_triage.data import manifest
    from lesion_triage.export import sealing

    known, _ = manifest.read(run.folder)
    made_from = sealing.MadeFrom(known, records(run, "train"), records(run, "validation"), data_root(run))
    sealed = sealing.seal_run(run.folder, run.config, made_from, _pixel_cache(run))
    bundle, parity = sealed.bundle, sealed.parity
    say(
        f"  parity on {parity.images} validation photographs: largest score difference "
        f"{parity.largest_score_difference:.1e}, {parity.decision_flips} decision flips"
    )
    say(f"  sealed {run.folder / 'bundle'} ({bundle.sha256[:16]})")
    tracker.tags({"bundle_sha256": bundle.sha256})
    tracker.metrics({"export.largest_score_difference": parity.largest_score_difference})
    tracker.artifact(run.folder / "bundle", "bundle")


def _evaluate(run: Run, tracker: Tracker) -> None:
    from lesion_triage.bundle.store import open_bundle
    from lesion_triage.data import manifest
    from lesion_triage.evaluate import report
    from lesion_triage.export import parity
    from lesion_triage.train import checkpoint

    bundle = open_bundle(run.folder / "bundle")
    with (run.folder / "test_openings.jsonl").open("a", encoding="utf-8") as stream:
        opening = {
            "opened_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "bundle_sha256": bundle.sha256,
        }
        stream.write(json.dumps(opening, sort_keys=True) + "\n")
    table = _predict_split(run, "test", bundle.graph)
    table.write(run.folder / "predictions")
    with bar("comparing with torch"):
        agreement = parity.compare(
            checkpoint.load_checkpoint(run.folder),
            bundle.header.model.views,
            bundle.header.pixels,
            bundle.policy,
            table,
            records(run, "test"),
            data_root(run),
        )
    known, _ = manifest.read(run.folder)
    results = report.evaluate(table, bundle, run.config.evaluate, asdict(agreement))
    say("  drawing the report")
    index = report.write_report(run.folder / "report", results, table, bundle, known, data_root(run))
    tracker.metrics(results.flat())
    tracker.artifact(run.folder / "report", "report")
    say(f"  report: {index}")


def _digest(run: Run, stage: str) -> str:
    """SHA-256 of the table that 'manifest' or 'split' left: what their headers call it."""
    from lesion_triage.data import manifest, split

    digest = manifest.read(run.folder)[1]
    if stage == "manifest":
        return digest
    return split.read(run.folder, digest)[1]


def records(run: Run, name: str) -> list[Any]:
    """Records of one split, in the order of its file."""
    from lesion_triage.data import manifest, split

    known, digest = manifest.read(run.folder)
    splits, _ = split.read(run.folder, digest)
    by_id = {record.image_id: record for record in known.records}
    return [by_id[image_id] for image_id in splits.image_ids(name)]


_CURVE = "learning_curve.json"
AUDIT, AUDIT_MODEL = "audit", "audit_with_model"
_PREDICTED = (
    "model.onnx",
    *(f"predictions/{name}.{kind}" for name in ("validation", "calibration") for kind in ("csv", "json")),
)
STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "manifest",
            (),
            _manifest_inputs,
            ("manifest.csv", "duplicates.csv", "manifest.json"),
            _manifest,
            _tell_manifest,
        ),
        Stage(
            "split",
            ("manifest",),
            lambda run: run.config.split.model_dump(),
            ("splits.json",),
            _split,
            _tell_split,
        ),
        Stage("audit", ("manifest", "split"), _audit_inputs, (AUDIT,), _audit, _tell_audit),
        Stage(
            "train",
            ("manifest", "split"),
            _train_inputs,
            ("checkpoint.safetensors", _CURVE),
            _train,
            _tell_train,
            _go_on_training,
            ("train_state",),
        ),
        Stage("predict", ("train",), _predict_inputs, _PREDICTED, _predict),
        Stage(
            "audit_model",
            ("audit", "predict"),
            lambda run: None,
            (AUDIT_MODEL,),
            _audit_model,
            lambda run, tracker: _tell_audit(run, tracker, AUDIT_MODEL),
        ),
        Stage(
            "calibrate",
            ("predict",),
            _calibrate_inputs,
            ("policy.json", "certificate.json"),
            _calibrate,
        ),
        Stage(
            "export",
            ("train", "calibrate"),
            lambda run: (run.config.name, run.config.export.model_dump()),
            ("bundle",),
            _export,
        ),
        Stage(
            "evaluate",
            ("export",),
            lambda run: run.config.evaluate.model_dump(),
            ("predictions/test.csv", "predictions/test.json", "report"),
            _evaluate,
        ),
    )
}
VERBS: dict[str, tuple[str, ...]] = {
    "manifest": ("manifest",),
    "split": ("split",),
    "audit": ("manifest", "split", "audit"),
    "train": ("train", "predict"),
    "calibrate": ("calibrate",),
    "export": ("export",),
    "evaluate": ("evaluate",),
    "run": tuple(STAGES),
}
"""Verb -> stages. 'audit' goes on to the model where there is one. 'train' ends with the exported graph's own
logits, which is what 'calibrate' reads."""


def following() -> bool:
    """Whether this process was started to share a training that another process begins."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) > 0


def follow(verb: str, config: Config) -> None:
    """What all processes of a training but the first do of a verb."""
    if "train" in VERBS[verb]:
        from lesion_triage.train import loop

        loop.follow(config)


def travel(
    verb: str,
    config: Config,
    root: Path,
    fresh: bool = False,
    resume: bool = False,
    show_pictures: bool = False,
) -> Run:
    """Do the stages of a verb, leaving alone what is already done and going on with what was interrupted.

    Args:
        verb: a key of ``VERBS``.
        config: the resolved configuration.
        root: folder of all runs.
        fresh: start a new run folder and take nothing over.
        resume: refuse to begin a training from nothing.
        show_pictures: for ``audit``: write a page with photographs as well, which stays in the run folder.

    Raises:
        AuditError: the audit says fail, and the configuration does not accept it.
        RunError: a stage before the one asked for has not been done.
        LesionTriageError: whatever a stage raises; what it had begun is removed, what came before stays.
    """
    require_data(config)
    run = runs.make(config, root) if fresh else runs.find_or_make(config, root)
    if any(_outdated(stage, run) for stage in STAGES.values()):
        run = runs.make(config, root)  # the data or the weights changed: what was finished stays as it is
    say(f"{run.folder}")
    asked = VERBS[verb]
    tracker = Tracker(config, run.folder, say)
    tracker.params({**flat(config), "config_sha256": config.identity_sha256()})
    tracker.text(config_text(config), "config.yaml")
    tracker.text(environment(), "environment.txt")
    status = "FAILED"
    try:
        for name in _with_needs(asked):
            worked = _reach(STAGES[name], run, tracker, may_work=name in asked, fresh=fresh, resume=resume)
            if name == "train" and name in asked and not worked:
                _dismiss(config)
            if name == "audit" and verb == "run":
                refuse_failed_audit(run)  # before the hours of training, not after them
        if verb == "audit":
            if all(_done(STAGES[name], run, tracker, fresh) for name in ("train", "predict")):
                _reach(STAGES["audit_model"], run, tracker, may_work=True, fresh=fresh, resume=False)
            if show_pictures:
                _show_pictures(run)
            refuse_failed_audit(run)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)
    return run


def _dismiss(config: Config) -> None:
    if "RANK" in os.environ:  # started by torchrun, beside others who wait
        from lesion_triage.train import loop

        loop.dismiss(config)


def config_text(config: Config) -> str:
    """The configuration without the places where data and weights lie."""
    return json.dumps(flat(config), indent=2, sort_keys=True) + "\n"


def _with_needs(asked: Sequence[str]) -> list[str]:
    wanted = set(asked)
    for name in reversed(STAGES):
        if name in wanted:
            wanted.update(STAGES[name].needs)
    return [name for name in STAGES if name in wanted]


def _inputs(stage: Stage, run: Run) -> str | None:
    """Hash of all that decides a stage's result; None while a stage it needs is not done."""
    needed = {}
    for name in stage.needs:
        record = run.record(name)
        if record is None:
            return None
        needed[name] = record.sha256()
    return runs.inputs_sha256(stage=stage.name, decides=stage.decides(run), needs=needed)


def _outdated(stage: Stage, run: Run) -> bool:
    record = run.record(stage.name)
    return record is not None and record.inputs_sha256 != _inputs(stage, run)


def _done(stage: Stage, run: Run, tracker: Tracker, fresh: bool) -> bool:
    """True if the stage holds, here or taken over from another run."""
    inputs = _inputs(stage, run)
    if inputs is None:
        return False
    if run.holds(stage.name, inputs):
        run.clear(stage.scratch)
        say(f"{stage.name}: unchanged")
        return True
    if not fresh and (other := next((o for o in runs.others(run) if o.holds(stage.name, inputs)), None)):
        run.adopt(stage.name, other)
        stage.retell(run, tracker)
        say(f"{stage.name}: taken over from {other.folder.name}")
        return True
    return False


def _reach(stage: Stage, run: Run, tracker: Tracker, *, may_work: bool, fresh: bool, resume: bool) -> bool:
    """Do a stage, or see that it is done. Returns whether there was work."""
    inputs = _inputs(stage, run)
    assert inputs is not None, "the stages come in the order of their needs"
    if _done(stage, run, tracker, fresh):
        return False
    if not may_work:
        verb = next(verb for verb, stages in VERBS.items() if stage.name in stages)
        raise RunError(
            f"'{stage.name}' has not been done for this configuration: `lesion-triage {verb}` comes first."
        )
    say(f"{stage.name}")
    run.clear(stage.outputs)
    if not fresh:
        stage.go_on(run, resume)
    began = time.monotonic()
    try:
        stage.work(run, tracker)
    except BaseException:
        run.clear(stage.outputs)
        raise
    record = run.finish(stage.name, inputs, stage.outputs, time.monotonic() - began)
    tracker.metrics({f"seconds.{stage.name}": record.seconds})
    run.clear(stage.scratch)
    return True
