"""The picture of a run, where matplotlib is installed (requirements-bench.txt)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Record = dict[str, Any]
MISSING = "no picture: matplotlib is not installed (requirements-bench.txt)"


def draw(record: Record, path: Path) -> bool:
    """Write the PNG; False where matplotlib is missing."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot, ticker
    except ImportError:
        return False
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.8), layout="constrained")
    rows = [
        (f"{found['title']} {found['version']}".strip(), found)
        for found in record["targets"].values()
        if found["status"] == "served"
    ]
    for label, found in rows:
        _throughput(axes[0], label, found)
        _streams(axes[1], label, found, "first_p99")
        _streams(axes[2], label, found, "token_p99")
    plain = ticker.ScalarFormatter()
    _dress(axes[0], plain, "calls/s, upstream at once", "connections", "calls/s")
    _dress(axes[1], plain, "first token, p99 (ms)", "streams at once", "ms")
    _dress(axes[2], plain, "upstream's write to client's read, p99 (ms)", "streams at once", "ms")
    if rows:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle(f"{record['made'][:10]}, {record['machine']['cores']} cores for everything")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return True


def _throughput(axis: Any, label: str, found: Record) -> None:
    cells = [cell for cell in found.get("frontier", []) if cell["delay"] == 0 and cell["rps"]]
    axis.plot(
        [cell["connections"] for cell in cells],
        [cell["rps"] for cell in cells],
        marker="o",
        label=label,
    )


def _streams(axis: Any, label: str, found: Record, kind: str) -> None:
    cells = [cell for cell in found.get("streams", []) if cell[kind] is not None]
    axis.plot(
        [cell["streams"] for cell in cells],
        [cell[kind] for cell in cells],
        marker="o",
        label=label,
    )


def _dress(axis: Any, formatter: Any, title: str, horizontal: str, vertical: str) -> None:
    axis.set(title=title, xlabel=horizontal, ylabel=vertical)
    if not any(len(line.get_xdata()) for line in axis.get_lines()):  # that part was left out
        return
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter(formatter)
    axis.grid(visible=True, alpha=0.3)
