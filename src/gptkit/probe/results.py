"""What result.json says of the probed sites: every accuracy with its standard error and its 95% interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gptkit.probe.fit import Probe, Right
from gptkit.scoring.intervals import item_interval
from gptkit.scoring.measures import MEASURES

if TYPE_CHECKING:  # it needs torch
    from gptkit.tasks.frozen_states import Site

Row = dict[str, Any]


def accuracy_of(right: Right) -> dict[str, Any]:
    """Return the accuracy of answers (example,), its standard error and Wilson's interval."""
    measure, columns = MEASURES["accuracy"], {"correct": right}
    stderr = measure.statistic.stderr(columns) if len(right) > 1 else None
    return {"accuracy": float(right.mean()), "stderr": stderr, "interval": item_interval(measure, columns)}


def row_of(site: Site, probe: Probe) -> Row:
    """Return the row of a site."""
    unit, control = accuracy_of(probe.unit_right), accuracy_of(probe.control_right)
    return {
        "layer": site.layer,
        "site": site.name,
        **accuracy_of(probe.right),
        "units": len(probe.classifier.units()),
        "strength": probe.chosen.strength,
        "best_unit": probe.best_unit,
        "best_unit_accuracy": unit["accuracy"],
        "best_unit_interval": unit["interval"],
        "control_accuracy": control["accuracy"],
        "control_interval": control["interval"],
        "strengths": [
            {"strength": tried.strength, "units": tried.units, **accuracy_of(tried.dev)} for tried in probe.strengths
        ],
        "by_units": [{"units": step.units, **accuracy_of(step.dev)} for step in probe.steps],
    }


def best_site(probes: Mapping[Site, Probe]) -> Site:
    """Return the site whose fit is most accurate on the split that chooses; of equals the first."""
    return max(probes, key=lambda site: probes[site].chosen.dev.mean())


def best_unit_site(probes: Mapping[Site, Probe]) -> Site:
    """Return the site of the MLP whose best unit is most accurate on the split that chooses: a unit can be held."""
    units = {site: probe for site, probe in probes.items() if site.name == "mlp"}
    return max(units, key=lambda site: units[site].unit_dev.mean())
