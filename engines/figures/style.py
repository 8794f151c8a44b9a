"""Colours that people tell apart, colour-blind ones too (the first four are Okabe and Ito's)."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5195", "#b8860b", "#56b4e9", "#8b0000", "#444444", "#6b8e23")
