"""Divide datasets: splits, few labels, episodes, domains; and find what stands on both sides."""
