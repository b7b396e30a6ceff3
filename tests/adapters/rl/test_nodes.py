# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Where both roles live on a cluster of several nodes: three raylets on this machine, each with its own devices.

Placement groups are made by the trainer's own code and looked up in Ray's state; one whole job runs split over two of
them.
"""

from __future__ import annotations

import pytest
import ray

from longshort_verl.adapters.rl.check import check_config
from longshort_verl.config.compose import ConfigError
from tests.support.configs import tiny_config
from tests.support.jobs import MARK, start_job
from tests.support.nodes import nodes

pytestmark = [pytest.mark.job, pytest.mark.timeout(1800)]

# A device's three processes, and what else may come to its node before: the runner, and two of TransferQueue's.
HEAD, ONE_DEVICE = {"num_cpus": 4, "num_gpus": 0}, {"num_cpus": 6, "num_gpus": 1}
PROBS_DIFF = "training/rollout_probs_diff_mean"
OF_THE_CLUSTER = ("ray_kwargs.ray_init.num_cpus=null", "ray_kwargs.ray_init.num_gpus=null")
"""What a node has is its own affair where the job joins a cluster."""


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
        trainer.config = tiny_config(tiny_models, tiny_problems, *OF_THE_CLUSTER, *overrides)
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


@pytest.mark.slow
def test_a_job_split_over_two_nodes_learns_where_it_should(tmp_path, tiny_problems):
    environment = {"VERL_FILE_LOGGER_PATH": str(tmp_path / "metrics.jsonl"), MARK: str(tmp_path)}
    with nodes([HEAD, ONE_DEVICE, ONE_DEVICE], environment) as cluster:
        job = start_job(
            tmp_path,
            f"+ray_kwargs.ray_init.address={cluster.address}",
            *OF_THE_CLUSTER,
            "long_short.schedule=joint",
            "long_short.placement=split",
            f"data.train_files={tiny_problems}/train.parquet",
            f"data.val_files={tiny_problems}/val.parquet",
            "trainer.total_training_steps=3",
            "trainer.val_before_train=false",
            "trainer.test_freq=-1",
        )
        job.wait_for_step(1, timeout=1200)
        # While it runs: who is where.
        (long,), (short,) = cluster.bundles("global_pool"), cluster.bundles("short_pool")
        assert long | short == set(cluster.ids[1:])
        assert not long & short
        workers = [actor["Address"]["NodeID"] for actor in cluster.actors("WorkerDict")]
        assert sorted(workers) == sorted([*long, *short])
        # Replicas are numbered: the long policy's is the first one.
        for replica, node in ((0, long), (1, short)):
            (server,) = cluster.actors(f"server_{replica}_0")
            assert {server["Address"]["NodeID"]} == node, server["Name"]
        job.process.wait()
        assert job.process.returncode == 0, job.log[-6000:]
        for step in (1, 2, 3):
            for role in ("long", "short"):
                assert job.steps()[step][f"{role}/{PROBS_DIFF}"] < 1e-5, (step, role)
                assert job.steps()[step][f"{role}/actor/grad_norm"] > 0
    assert job.leftovers(within=60) == []
