# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Several Ray nodes on one machine: raylets of their own, on loopback, with logical devices and small object stores."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import ray
from ray.cluster_utils import Cluster

HEAD = {"num_cpus": 4, "num_gpus": 0}
ONE_DEVICE = {"num_cpus": 6, "num_gpus": 1}
"""Room for a device's three processes, the job's runner and two processes of TransferQueue."""
JOIN_CLUSTER = ("ray_kwargs.ray_init.num_cpus=null", "ray_kwargs.ray_init.num_gpus=null")
"""Overrides of a job that joins a cluster: the cluster's nodes set their own sizes."""


@dataclass(frozen=True)
class Nodes:
    """A running cluster."""

    cluster: Cluster
    ids: tuple[str, ...]
    """Of its nodes, in the order in which they were asked for."""

    @property
    def address(self) -> str:
        """For ``ray.init``."""
        return self.cluster.address

    def actors(self, kind: str) -> list[dict]:
        """What Ray's state holds of living actors whose class or name has ``kind`` in it."""
        found = self.cluster.global_state.actor_table(None, None, "ALIVE").values()
        return [one for one in found if kind in one["ActorClassName"] or kind in (one["Name"] or "")]

    def bundles(self, pool: str) -> list[set[str]]:
        """Nodes of each placement group of a resource pool, by the pool's name."""
        groups = self.cluster.global_state.placement_group_table().values()
        return [
            set(group["bundles_to_node_id"].values())
            for group in groups
            if group["name"].startswith(pool) and group["state"] == "CREATED"
        ]


@contextmanager
def nodes(resources: Sequence[Mapping[str, int]], environment: Mapping[str, str] | None = None) -> Iterator[Nodes]:
    """A cluster with a node for each of ``resources`` (``num_cpus``, ``num_gpus``); ``environment`` is its workers'.

    Its folder is its own: Ray would otherwise lead every ``ray.init()`` on this machine to it.
    """
    with _own_folder(environment or {}):
        cluster = Cluster()
        try:
            started = [
                cluster.add_node(
                    **one, node_ip_address="127.0.0.1", object_store_memory=128 * 2**20, include_dashboard=False
                )
                for one in resources
            ]
            yield Nodes(cluster, tuple(node.node_id for node in started))
        finally:
            ray.shutdown()
            cluster.shutdown()


@contextmanager
def _own_folder(environment: Mapping[str, str]) -> Iterator[None]:
    # A socket's path has 107 characters at most, and Ray's own part is long.
    with (
        tempfile.TemporaryDirectory(prefix="ls", dir="/tmp", ignore_cleanup_errors=True) as folder,
        patch.dict(os.environ, {"RAY_TMPDIR": folder, **environment}),
    ):
        yield
