"""Figures of what records hold; evaluation, report and `cembench plot` share them."""
