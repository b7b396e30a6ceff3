# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Where both roles live on a cluster of several nodes: three raylets on this machine, each with its own devices.

The trainer's own code makes the placement groups, and the tests look them up in Ray's state. tests/adapters/rl/
test_placements.py runs a whole job on two of these nodes.
"""

from __future__ import annotations

import pytest
import ray

from longshort_verl.adapters.rl.check import check_config
from longshort_verl.config.compose import ConfigError
from tests.support.configs import tiny_config
from tests.support.nodes import HEAD, JOIN_CLUSTER, ONE_DEVICE, nodes

pytestmark = [pytest.mark.job, pytest.mark.alone, pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def three_nodes():
    with nodes([HEAD, ONE_DEVICE, ONE_DEVICE]) as found:
        ray.init(address=found.address)
        yield found


@pytest.fixture
def placed(three_nodes, tiny_models, tiny_problems):
    """The trainer's pools on the cluster: the long policy's and the short one's, with all that it checks before."""
    from longshort_verl.adapters.rl.trainer import LongShortTrainer

    made = []

    def place(*overrides):
        trainer = LongShortTrainer.__new__(LongShortTrainer)
        trainer.config = tiny_config(tiny_models, tiny_problems, *JOIN_CLUSTER, *overrides)
        trainer.settings = check_config(trainer.config, cluster=ray.cluster_resources())
        trainer._init_resource_pool_mgr()
        trainer.resource_pool_manager.create_resource_pool()
        long = trainer.resource_pool_manager.get_resource_pool(next(iter(trainer.role_worker_mapping)))
        pools = [long, trainer._short_devices()]
        for pool in pools:
            made.extend(pool.get_placement_groups(device_name="cpu"))
        return pools

    yield place
    for group in set(made):
        ray.util.remove_placement_group(group)


def test_split_roles_live_on_nodes_of_their_own(placed, three_nodes):
    long, short = placed("long_short.placement=split")
    assert (long.world_size, short.world_size) == (1, 1)
    (long_node,), (short_node,) = three_nodes.bundles("global_pool"), three_nodes.bundles("short_pool")
    _, *with_devices = three_nodes.ids
    assert long_node | short_node == set(with_devices)
    assert not long_node & short_node


def test_colocated_roles_share_both_nodes(placed, three_nodes):
    long, short = placed("trainer.nnodes=2")
    assert short is long
    assert long.world_size == 2
    first, second = three_nodes.bundles("global_pool")
    assert three_nodes.bundles("short_pool") == []
    # A node's workers are together, and no two groups are on one node.
    assert first | second == set(three_nodes.ids[1:])
    assert len(first) == len(second) == 1
    # Three processes fit onto a device: two policies and verl's own spare one.
    assert long.max_colocate_count >= 2


def test_more_nodes_than_there_are_is_refused_before_anything_waits(placed):
    with pytest.raises(ConfigError, match=r"the Ray cluster's number of devices is 2, but the job needs 3"):
        placed("trainer.nnodes=2", "long_short.placement=split")
