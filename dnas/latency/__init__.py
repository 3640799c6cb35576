"""Latency tables: lookup, cost model, import, measurement, calibration. Importing this starts no JAX."""

from dnas.latency.cost_model import CostModel
from dnas.latency.table import LatencyReport, LatencyTable, Price

__all__ = ["CostModel", "LatencyReport", "LatencyTable", "Price"]
