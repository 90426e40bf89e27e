from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TRAINING = (
    "torch",
    "torchvision",
    "timm",
    "sklearn",
    "mlflow",
    "albumentations",
    "matplotlib",
    "scipy",
    "onnx",
)


def test_server_never_sees_the_training_libraries():
    code = f"import sys, triage_server.cli; print([name for name in {TRAINING!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_server_needs_none_of_the_page_s_packages_until_the_page_is_switched_on(tiny_bundle: Path):
    """As where only ``[serve]`` is installed."""
    code = """
import sys
from pathlib import Path
for name in ("sqlalchemy", "alembic", "jinja2", "psycopg"):
    sys.modules[name] = None
from pathlib import Path
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.errors import ConfigError
from triage_server.app import create_app
from triage_server.cli import main
from triage_server.settings import Settings
scorer = Scorer.open(Path(sys.argv[1]))
create_app(scorer.bundle, scorer, Settings(bundle=sys.argv[1]))
try:
    create_app(scorer.bundle, scorer, Settings(bundle=sys.argv[1], reading_queue="queue.sqlite"))
except ConfigError as error:
    print(error)
sys.exit(main(["queue", "migrate", "--database", "queue.sqlite"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_bundle)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    for said in (done.stdout, done.stderr):
        assert "install the extras [serve,queue]" in said
        assert "in a checkout: pip install '.[serve,queue]'" in said


def test_program_collects_garbage_again_once_it_is_imported_and_passes_the_exit_status_on():
    code = """
import gc, sys
from triage_server.__main__ import main
sys.argv = ["triage-server", "--bundle", "/nowhere"]
status = main()
print(status, gc.isenabled(), gc.get_freeze_count() > 10_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 True True\n"
    assert done.stderr.count("\n") == 1
    status = subprocess.run([sys.executable, "-m", "triage_server", "--bundle", "/nowhere"], check=False)
    assert status.returncode == 2
