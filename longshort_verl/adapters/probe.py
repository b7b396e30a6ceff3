# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""What a fresh process finds of verl, Ray and this package; ``longshort doctor`` starts it as ``python -m``.

It runs outside the working folder with the user's environment, as Ray's workers do: what it does not find, no worker
finds. It prints one line of JSON.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLUGIN = "longshort_verl.adapters.plugin"


def probe() -> dict[str, Any]:
    """Versions, entry points, and the module that is registered for each name; ``{"error": …}`` where one fails."""
    import longshort_verl

    def verl() -> dict[str, Any]:
        import verl

        return {"version": verl.__version__, "plugin": PLUGIN in sys.modules}

    def torch() -> dict[str, Any]:
        import torch

        return {"cuda": torch.version.cuda, "devices": torch.cuda.device_count()}

    def node() -> dict[str, Any]:
        import ray

        return {"address": ray.util.get_node_ip_address()}

    def platform() -> dict[str, Any]:
        from verl.plugin.platform import get_platform

        chosen = get_platform()
        return {"module": f"{chosen.device_name} ({type(chosen).__name__})"}

    def trainer() -> dict[str, Any]:
        from verl.trainer.ppo.v1 import get_trainer_cls

        return {"module": get_trainer_cls("longshort").__module__}

    def agent_loop() -> dict[str, Any]:
        from verl.experimental.agent_loop import agent_loop

        return {"module": agent_loop._agent_loop_registry["longshort"]["_target_"].rpartition(".")[0]}

    def answer(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return ask()
        except Exception as error:  # a broken installation may raise anything; the other facts are still wanted
            return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}

    return {
        "package": str(Path(longshort_verl.__file__).parent),
        "entry_points": [
            {"name": entry.name, "distribution": entry.dist.name if entry.dist else "?"}
            for entry in importlib.metadata.entry_points(group="verl.plugins")
            if entry.value.startswith("longshort_verl")
        ],
        # verl first: where it does not load the plugin, nothing below may load it.
        **{ask.__name__: answer(ask) for ask in (verl, torch, node, platform, trainer, agent_loop)},
    }


def cluster_resources(address: str) -> dict[str, float]:
    """Resources of a running Ray cluster, as Ray names them ("CPU", "GPU")."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    return dict(ray.cluster_resources())


if __name__ == "__main__":
    print(json.dumps(cluster_resources(sys.argv[1]) if sys.argv[1:] else probe()))
