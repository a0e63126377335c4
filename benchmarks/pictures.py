"""Pictures of figures: groups of bars, a bar for each engine or version; nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Figures = Mapping[str, Mapping[str, float]]  # group -> name of the bar -> height


def draw(
    path: str, title: str, panels: Mapping[str, Figures], lines: Mapping[str, float] | None = None
) -> None:
    """Write a picture.

    Args:
        path: of the file; its ending says the format.
        title: above all.
        panels: figures by the label of their axis; each panel has a scale of its own.
        lines: heights to mark in all panels, by what they mean.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install matplotlib") from None
    most = max(len(figures) for figures in panels.values())
    size = (min(max(6, 2 + 1.2 * most), 20), 1 + 4 * len(panels))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axis, (label, figures) in zip(axes, panels.items(), strict=True):
        names = list(dict.fromkeys(name for bars in figures.values() for name in bars))
        _bars(axis, figures, names)
        for i, (meaning, height) in enumerate((lines or {}).items()):
            axis.axhline(height, color="black", linestyle=("--", ":")[i % 2], label=meaning)
        axis.set_ylabel(label)
        axis.legend()
    figure.savefig(path)
    print(f"picture: {path}")


def _bars(axis: object, figures: Figures, names: Sequence[str]) -> None:
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        places = [j + (i - (len(names) - 1) / 2) * width for j in range(len(figures))]
        heights = [bars.get(name, 0.0) for bars in figures.values()]
        drawn = axis.bar(places, heights, width, label=name)  # type: ignore[attr-defined]
        axis.bar_label(drawn, fmt="%.3g", fontsize=6)  # type: ignore[attr-defined]
    axis.set_xticks(  # type: ignore[attr-defined]
        range(len(figures)),
        list(figures),
        rotation=30 if len(figures) > 4 else 0,
        ha="right" if len(figures) > 4 else "center",
    )
