"""What a result depends on beside configuration and data: processor, threads, packages. No host, no path."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from lesion_triage import __version__

PACKAGES = ("torch", "timm", "albumentations", "numpy", "pillow", "scikit-learn", "onnxruntime")
_INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
"""Instruction sets by which torch and onnxruntime choose their kernels, as named by Linux."""


def machine_facts() -> dict[str, str]:
    """Everything about this machine that affects numbers."""
    facts = {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count()),
        "python": platform.python_version(),
        "lesion-triage": __version__,
    }
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "absent"
    return facts


def describe_differences(recorded: Mapping[str, str], here: Mapping[str, str]) -> str:
    """How two machines differ, in words; empty: in nothing that is known."""
    if not recorded:
        return "the machine of the record is not known"
    return ", ".join(
        f"{name} {here.get(name, 'absent')} instead of {value}"
        for name, value in recorded.items()
        if here.get(name) != value
    )


def _processor() -> str:
    """Its name, which may be that of a whole family, and the instruction sets that affect numbers."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    cpu_fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    cpu_flags = set(cpu_fields.get("flags", "").split())
    instructions = [name for name in _INSTRUCTION_SETS if name in cpu_flags]
    return " ".join([cpu_fields.get("model name", platform.processor() or "unknown"), *instructions])
