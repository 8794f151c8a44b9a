"""How runs and methods are told apart in charts: by colour, by dashes and by markers."""

# Colours that colour-blind people tell apart, too (the first four are Okabe and Ito's), and lighter ones of the same
# order for a dark background.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5195", "#b8860b", "#56b4e9", "#8b0000", "#444444", "#6b8e23")
ON_DARK = ("#4aa8e8", "#ff8a3d", "#2ccf9f", "#f09ac9", "#b79be6", "#e3b73f", "#9bd6ff", "#ff7070", "#c4c4c4", "#a8cf55")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def line_style(number: int) -> dict:
    """Keywords of matplotlib's `plot` for the line of a run; the first 140 differ."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)],
            "marker": MARKERS[number % len(MARKERS)]}
