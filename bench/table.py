"""The tables of a run, as Markdown, from its record."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from bench import bars

Record = dict[str, Any]
FAST = 0  # milliseconds of the upstream in the main table


def text(record: Record) -> str:
    """Everything that a results file holds, in tables."""
    parts = [_head(record), _main(record), _slow(record), _streams(record), _memory(record)]
    if "inside" in record:
        parts += [_inside(record["inside"])]
    if "scaling" in record:
        parts += [_scaling(record["scaling"])]
    if "far" in record:
        parts += [_far(record["far"])]
    parts.append(_bars(record))
    return "\n\n".join(part for part in parts if part)


def number(value: float | int | None) -> str:
    """Short: three digits that count, whole from a hundred on; a dash for nothing."""
    if value is None:
        return "–"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def rate(cell: Record | None) -> str:
    """Calls/s with the p99, and what went wrong."""
    if not cell:
        return "–"
    told = f"{number(cell['rps'])} ({number(cell['p99'])})"
    wrong = [f"{cell[kind]} {kind}" for kind in ("failed", "timeouts") if cell[kind]]
    return f"{told} {', '.join(wrong)}".strip()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned for a terminal too."""
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (head, *rows)
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _head(record: Record) -> str:
    machine = record["machine"]
    quick = " **A quick run: no figures to quote.**" if record["quick"] else ""
    return (
        f"{record['made']}, {machine['cores']} cores for load, upstream, Redis and gateway "
        f"together (load average before: {machine['load_before']}), Python {machine['python']}. "
        f"Upstream: {record['upstream']}. Redis: {record['redis']}. Load: {record['load']}, "
        f"{number(record['seconds'])} s a cell; ratios and latencies are medians of "
        f"{record['repeats']} pairs.{quick}"
    )


def _name(found: Record) -> str:
    count = f" [{found['processes']}]" if found["processes"] else ""
    return f"{found['title']} {found['version']}".strip() + count


def _cell(found: Record, delay: int, connections: int) -> Record | None:
    for cell in found.get("frontier", []):
        if (cell["delay"], cell["connections"]) == (delay, connections):
            return dict(cell)
    return None


def _axis(record: Record, delay: int | None = None) -> list[int]:
    return sorted(
        {
            cell["connections"]
            for found in record["targets"].values()
            for cell in found.get("frontier", [])
            if delay is None or cell["delay"] == delay
        }
    )


def _main(record: Record) -> str:
    columns = _axis(record, FAST)
    head = ["[processes]", "added p50, p99 (ms)"]
    head += [f"{count} conn: calls/s (p99 ms)" for count in columns]
    rows = []
    for found in record["targets"].values():
        row = [_name(found), _added(found), *(rate(_cell(found, FAST, count)) for count in columns)]
        rows.append([*row, _ratio(found), _status(found)])
    return "Upstream answers at once\n\n" + table([*head, "ours / this", ""], rows)


def _added(found: Record) -> str:
    latency = found.get("latency")
    if not latency:
        return "–"
    return f"{number(latency['added_p50'])}, {number(latency['added_p99'])}"


def _ratio(found: Record) -> str:
    ratio = found.get("ratio")
    if not ratio or ratio["median"] is None:
        return "–"
    where = f" ({ratio['connections']} conn, {ratio['delay']} ms)"
    return f"{ratio['median']:.2f}{where}"


def _status(found: Record) -> str:
    if found["status"] == "served":
        return ""
    reason = found.get("reason", "").replace("|", "/")
    return f"{found['status']} {reason[:80]}".strip()


def _slow(record: Record) -> str:
    delays = sorted(
        {
            cell["delay"]
            for found in record["targets"].values()
            for cell in found.get("frontier", [])
            if cell["delay"] != FAST
        }
    )
    parts = []
    for delay in delays:
        columns = _axis(record, delay)
        rows = [
            [_name(found), *(rate(_cell(found, delay, count)) for count in columns)]
            for found in record["targets"].values()
            if found.get("frontier")
        ]
        head = ["calls/s (p99 ms)", *(f"{count} conn" for count in columns)]
        parts.append(f"Upstream answers after {delay} ms\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _streams(record: Record) -> str:
    rows = [
        stream_row(_name(found), cell)
        for found in record["targets"].values()
        for cell in found.get("streams", [])
    ]
    if not rows:
        return ""
    return "Streams of 64 deltas at 20 ms\n\n" + table(STREAM_HEAD, rows)


STREAM_HEAD = [
    "[processes]",
    "at once",
    "whole",
    "broken",
    "added first token p50, p99 (ms)",
    "added per token p50, p99 (ms)",
    "largest gap (ms)",
]


def stream_row(name: str, cell: Record) -> list[str]:
    """One cell of streams; "added" where the upstream's own figures are known."""

    def both(kind: str) -> str:
        added = cell.get(f"added_{kind}_p50") is not None
        prefix = "added_" if added else ""
        told = f"{number(cell[f'{prefix}{kind}_p50'])}, {number(cell[f'{prefix}{kind}_p99'])}"
        return told if added or cell[f"{kind}_p50"] is None else f"{told} (not added: whole)"

    problems = f" ({'; '.join(cell['problems'][:2])})" if cell["problems"] else ""
    return [
        name,
        str(cell["streams"]),
        str(cell["whole"]),
        f"{cell['broken']}{problems}",
        both("first"),
        both("token"),
        number(cell["gap"]),
    ]


def _memory(record: Record) -> str:
    rows = []
    for found in record["targets"].values():
        if found.get("idle_mb") is None:
            continue
        cell = _cell(found, FAST, 64)
        cpu = cell["cpu_ms"] if cell else {}
        spent = ", ".join(f"{role} {number(value)}" for role, value in cpu.items())
        sizes = [number(found.get(f"{when}_mb")) for when in ("idle", "loaded", "streamed")]
        rows.append([_name(found), *sizes, spent or "–"])
    if not rows:
        return ""
    head = ["[processes]", "idle (MB)", "after the calls", "after the streams"]
    text = "Memory and processor\n\n" + table([*head, "CPU a call at 64 conn (ms)"], rows)
    return f"{text}\n\n{_cpu(record)}".strip()


def _cpu(record: Record) -> str:
    rows = [
        [f"{_name(found)}: a {kind}", *(number(_middle(ratio, side)) for side in (0, 1))]
        + [number(ratio["median"])]
        for found in record["targets"].values()
        for kind, ratio in found.get("cpu_ratio", {}).items()
    ]
    if not rows:
        return ""
    head = ["CPU, Redis included (a call: ms, a token: µs)", "ours", "this", "ours / this"]
    return table(head, rows)


def _middle(ratio: Record, side: int) -> float:
    return statistics.median(pair[side] for pair in ratio["pairs"])


def _inside(found: Record) -> str:
    if "status" in found:
        return f"Ours, Redis: {found['status']} {found['reason']}"
    rows = [
        [str(cell["connections"]), number(cell["round_trips"]), number(cell["commands"])]
        for cell in found["redis"]
    ]
    head = ["ours: connections", "Redis round trips a call", "commands a call, in scripts too"]
    held, memory = found["in_flight"], found["memory"]
    cpu = ", ".join(f"{role} {number(value)}" for role, value in found["cpu_ms"].items())
    return "\n".join(
        [
            table(head, rows),
            "",
            f"- CPU a call at 64 connections (ms): {cpu}",
            f"- Redis connections at {held['calls']} calls in flight: "
            f"{held['redis_connections']} ({held['failed']} calls failed)",
            f"- memory (MB): idle {number(memory['idle_mb'])}, plateau "
            f"{number(memory['plateau_mb'])}, after {memory['calls']:,} calls "
            f"{number(memory['after_mb'])}",
        ]
    )


def _scaling(found: Any) -> str:
    if isinstance(found, dict):
        return f"Ours, scaling: {found['status']} {found['reason']}"
    rows = []
    for point in found:
        streams = point["streams"]
        rows.append(
            [
                f"{point['webs']} web + {point['workers']} worker",
                *(rate(cell) for cell in point["cells"]),
                f"{number(streams['first_p99'])}, {number(streams['gap'])}, {streams['broken']}",
                number(point["mb"]),
            ]
        )
    head = ["ours", *(f"{c['connections']} conn, {c['delay']} ms" for c in found[0]["cells"])]
    streamed = "256 streams: first token p99 (ms), largest gap (ms), broken"
    return "Scaling out: calls/s (p99 ms)\n\n" + table([*head, streamed, "MB"], rows)


def _far(found: Record) -> str:
    if "status" in found:
        return f"Ours, Redis far away: {found['status']} {found['reason']}"
    rows = [[str(cell["connections"]), rate(cell)] for cell in found["cells"]]
    latency = found["latency"]
    return "\n\n".join(
        [
            f"Ours with {number(found['round_trip_ms'])} ms added to each Redis round trip "
            f"({number(found['measured_ms'])} measured, the proxy's own work in it): "
            f"added latency p50 {number(latency['added_p50'])} ms, "
            f"p99 {number(latency['added_p99'])} ms",
            table(["connections", "calls/s (p99 ms)"], rows),
            table(STREAM_HEAD, [stream_row("ours, far", cell) for cell in found["streams"]]),
        ]
    )


def _bars(record: Record) -> str:
    rows = [
        [title, number(value), bound, "" if met else "NOT MET"]
        for title, value, bound, met in bars.rows(record)
    ]
    return "Bars\n\n" + table(["ours", "measured", "bar", ""], rows) if rows else ""
