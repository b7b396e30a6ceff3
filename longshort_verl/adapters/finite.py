# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Ends a training run at a number that is NaN or infinite, before a checkpoint with it is called whole.

verl logs such a number and continues: it skips the update of a gradient that is not finite, and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

FIELDS = {
    "rm_scores": "reward",
    "rollout_log_probs": "log-probability of the engine",
    "old_log_probs": "log-probability of the actor",
    "ref_log_prob": "log-probability of the reference",
    "advantages": "advantage",
}
"""verl's fields of a row, and what they are called here; the first ones cause the later ones."""
_METRICS = ("loss", "grad_norm")
"""Ends of the names of the metrics that are compared."""
_CURE = "no checkpoint holds it; resume from the last one, with a lower learning rate if the loss was growing"


class NotFinite(RuntimeError):
    """A number of the training is NaN or infinite."""


def check_weights(names: Iterable[str], where: str, cure: str = _CURE) -> None:
    """Raises NotFinite if :func:`first_bad_weight` found one; ``names`` are those of all processes."""
    bad = next(filter(None, names), "")
    if bad:
        raise NotFinite(f"{where}: the weights hold NaN or infinity, first in {bad}; {cure}")


def first_bad_weight(module: torch.nn.Module) -> str:
    """Name of the first parameter of which this process's share holds NaN or infinity; "" if none does."""
    for name, parameter in module.named_parameters():
        share = parameter.detach()
        if isinstance(share, DTensor):
            share = share.to_local()
        # Smallest and largest, which are NaN if any is: no second tensor of the size of the parameter.
        if share.numel() and not torch.stack(torch.aminmax(share)).isfinite().all():
            return name
    return ""


def check_rows(rows: Mapping[str, Any], where: str) -> None:
    """Raises NotFinite if one of ``FIELDS``, each nested (rows, tokens) and some absent, holds NaN or infinity."""
    for field in filter(rows.keys().__contains__, FIELDS):
        values = torch.cat(list(rows[field].unbind()))
        bad = values[~values.isfinite()]
        if len(bad):
            raise NotFinite(f"{where}: the {FIELDS[field]} is {bad[0]} at {len(bad)} of {len(values)} tokens; {_CURE}")


def check_metrics(metrics: Mapping[str, Any], where: str) -> None:
    """Raises NotFinite if a loss or gradient norm is NaN or infinite."""
    for name, value in metrics.items():
        if name.endswith(_METRICS) and not np.isfinite(value).all():
            raise NotFinite(f"{where}: {name} is {value}; {_CURE}")
