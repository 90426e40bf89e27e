"""Nothing that is installed tells its maker what runs here."""

import os
import subprocess
import sys
from pathlib import Path

GRAPH = Path(__file__).with_name("tiny.onnx")


def test_onnxruntime_makes_no_identifier_and_no_uploader(tmp_path: Path) -> None:
    """Since 1.29 its wheels report to their maker unless they are told before they are imported."""
    code = (
        "import sys; from pathlib import Path; from lesion_triage.bundle.schema import PixelSpec\n"
        "from lesion_triage.bundle.graph import Graph\n"
        "Graph(Path(sys.argv[1]).read_bytes(), PixelSpec(size_px=32))"
    )
    places = {name: str(tmp_path) for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    # A variable that says CI would silence it as well, and the test would not see whether we do.
    kept = {name: value for name, value in kept.items() if not name.startswith(("CI", "GITHUB_", "TF_BUILD"))}
    subprocess.run([sys.executable, "-B", "-c", code, GRAPH], env=kept | places, check=True)
    assert [path.name for path in tmp_path.rglob("*")] == []


def test_ray_is_told_to_report_nothing() -> None:
    code = (
        "import lesion_triage; from ray._common.usage import usage_lib; "
        "print(usage_lib.usage_stats_enabled())"
    )
    kept = {name: value for name, value in os.environ.items() if name != "RAY_USAGE_STATS_ENABLED"}
    done = subprocess.run([sys.executable, "-c", code], env=kept, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
