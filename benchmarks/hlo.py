"""What compiled programs send between devices, read from their text."""

import re

import numpy as np

_WIDTH = {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "bf16": 2, "pred": 1, "s8": 1, "u8": 1}
_COLLECTIVE = re.compile(
    r" = (.*?) (all-reduce|all-gather|reduce-scatter|collective-permute)(-start)?\("
)


def traffic(hlo: str, devices: int) -> list[tuple[str, int, int]]:
    """(operation, ring bytes per device, executions) of every collective in compiled HLO.

    Ring bytes: what a device sends and gets the first time a ring of many devices does it: the
    gathered array, twice the reduced one, the array before it is reduced and scattered.
    A collective in a counted loop's body runs `known_trip_count` times; the exact fallback's
    loop, which has no count, does not run in a healthy step and is left out.
    """
    bodies, current = {}, None
    for line in hlo.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head and not line.startswith(" "):
            current = head.group(1)
            bodies[current] = []
        elif current:
            bodies[current].append(line)
    times = dict.fromkeys(bodies, 0)
    entry = re.search(r"^ENTRY %?([\w.\-]+)", hlo, re.M).group(1)

    def visit(name: str, count: int) -> None:
        times[name] += count
        for line in bodies[name]:
            trip = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            inner = int(trip.group(1)) if trip else 0 if " while(" in line else 1
            for callee in re.findall(r"(?:body|to_apply|calls)=%?([\w.\-]+)", line):
                visit(callee, count * inner)
            branches = re.search(r"branch_computations=\{([^}]*)\}", line)
            for callee in re.findall(r"%([\w.\-]+)", branches.group(1)) if branches else ():
                visit(callee, count)

    visit(entry, 1)
    found = []
    for name, lines in bodies.items():
        for line in lines:
            match = _COLLECTIVE.search(line)
            if match and times[name]:
                size = _bytes(match.group(1), started=bool(match.group(3)))
                size *= {"all-reduce": 2, "reduce-scatter": devices}.get(match.group(2), 1)
                found.append((match.group(2), size, times[name]))
    return found


def _bytes(shape: str, started: bool) -> int:
    """Bytes of a result; an asynchronous start may hold its operands too, and the result last."""
    sizes = [
        _WIDTH.get(kind, 4) * int(np.prod([int(x) for x in dims.split(",") if x]))
        for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", shape)
    ]
    return max(sizes) if started and shape.startswith("(") else sum(sizes)
