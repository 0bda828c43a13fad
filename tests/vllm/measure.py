"""Seconds of user and system time of processes, from /proc."""

import os
import resource
from pathlib import Path


def processes(number):
    """A process and all its descendants: their seconds by number."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        stats[int(path.parent.name)] = (int(fields[1]), sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK"))
    family = {number}
    while more := {child for child, (parent, _) in stats.items() if parent in family} - family:
        family |= more
    return {one: stats[one][1] for one in family if one in stats}


def cpu_seconds(number):
    return sum(processes(number).values())


def own_cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
