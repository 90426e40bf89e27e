"""Run a program as a systemd unit confines it: ``python tests/confined.py UNIT PROGRAM ARGUMENT...``.

Of the unit only ``SystemCallFilter=~...`` and ``SystemCallErrorNumber=`` are looked at. The filter is the
kernel's own (BPF by prctl); systemd makes the like of it. Exit status 77: this kernel lets none be set.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import struct
import sys
from pathlib import Path

NOT_HERE = 77
_MACHINES = ("x86_64", "aarch64")
_GROUPS: dict[str, dict[str, tuple[int | None, int | None]]] = {
    # As `systemd-analyze syscall-filter` shows them; numbers of x86_64, then of aarch64.
    "@resources": {
        "ioprio_set": (251, 30),
        "mbind": (237, 235),
        "migrate_pages": (256, 238),
        "move_pages": (279, 239),
        "sched_setaffinity": (203, 122),
        "sched_setattr": (314, 274),
        "sched_setparam": (142, 118),
        "sched_setscheduler": (144, 119),
        "set_mempolicy": (238, 237),
        "set_mempolicy_home_node": (450, 450),
        "setpriority": (141, 140),
        "setrlimit": (160, 164),
    },
    "@privileged": {
        "acct": (163, 89),
        "adjtimex": (159, 171),
        "bpf": (321, 280),
        "capset": (126, 91),
        "chown": (92, None),
        "chroot": (161, 51),
        "clock_adjtime": (305, 266),
        "clock_settime": (227, 112),
        "delete_module": (176, 106),
        "fanotify_init": (300, 262),
        "fanotify_mark": (301, 263),
        "fchown": (93, 55),
        "fchownat": (260, 54),
        "finit_module": (313, 273),
        "init_module": (175, 105),
        "ioperm": (173, None),
        "iopl": (172, None),
        "kexec_file_load": (320, 294),
        "kexec_load": (246, 104),
        "lchown": (94, None),
        "open_by_handle_at": (304, 265),
        "pivot_root": (155, 41),
        "quotactl": (179, 60),
        "quotactl_fd": (443, 443),
        "reboot": (169, 142),
        "setdomainname": (171, 162),
        "setgroups": (116, 159),
        "sethostname": (170, 161),
        "setresuid": (117, 147),
        "setreuid": (113, 145),
        "setuid": (105, 146),
        "settimeofday": (164, 170),
        "swapoff": (168, 225),
        "swapon": (167, 224),
        "vhangup": (153, 58),
    },
}
_LOAD_NUMBER, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def denied(unit: str) -> tuple[list[int], int]:
    """Numbers of the calls that a unit denies on this machine, and what becomes of whoever makes one."""
    machine = _MACHINES.index(platform.machine())
    groups = [
        name for line in re.findall(r"^SystemCallFilter=~(.*)$", unit, re.MULTILINE) for name in line.split()
    ]
    numbers = [both[machine] for name in groups for both in _GROUPS[name].values()]
    said = re.search(r"^SystemCallErrorNumber=(\w+)$", unit, re.MULTILINE)
    action = _KILL if said is None else _ERROR | int(getattr(errno, said[1]))
    return [number for number in numbers if number is not None], action


def confine(numbers: list[int], action: int) -> None:
    """Deny calls to this process and to what it becomes.

    Raises:
        OSError: the kernel takes no filter.
    """
    steps = [(_LOAD_NUMBER, 0, 0, 0)]
    for number in numbers:
        steps += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, action)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no seccomp filter can be set")


if __name__ == "__main__":
    if platform.machine() not in _MACHINES:
        sys.exit(NOT_HERE)
    try:
        confine(*denied(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except OSError:
        sys.exit(NOT_HERE)
    os.execv(sys.argv[2], sys.argv[2:])
