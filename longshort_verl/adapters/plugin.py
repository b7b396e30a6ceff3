# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point ``verl.plugins``: loaded at the end of ``import verl`` in every process, so it imports nothing heavy.

The trainer, the agent loop and the single model's advantage estimator register themselves when the module of verl that
holds their registry is imported. verl logs a plugin's failure only at DEBUG, and the job later fails with "Unknown
trainer". Therefore this module logs a failure at ERROR, with its cause, and raises it again (with patch 0007 it is
logged twice).
"""

from __future__ import annotations

import importlib
import logging
from types import ModuleType

logger = logging.getLogger(__name__)

_REGISTERS_WITH = {
    "verl.trainer.ppo.v1": "longshort_verl.adapters.rl.trainer",
    "verl.experimental.agent_loop": "longshort_verl.adapters.rl.agent_loop",
    "verl.trainer.ppo.core_algos": "longshort_verl.adapters.rl.single_model",
}
"""Module of verl → our module that registers a class or a function in it when imported."""


def _load() -> None:
    from longshort_verl.adapters import compat
    from longshort_verl.files.shared_memory import name_shared_memory

    name_shared_memory()
    if compat.on_cpu():
        from verl.plugin.platform import PlatformRegistry

        if PlatformRegistry.get("cpu") is None:  # verl may have one
            importlib.import_module("longshort_verl.adapters.cpu_platform")
        compat.install_cpu_shims()
    for host, ours in _REGISTERS_WITH.items():

        def register(module: ModuleType, ours: str = ours) -> None:
            _loudly(lambda: importlib.import_module(ours))

        compat.after_import(host, register)


def _loudly(load) -> None:
    try:
        load()
    except BaseException:
        logger.exception("longshort_verl could not be loaded into verl; its trainer and agent loop are missing")
        raise


_loudly(_load)
