# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""All tests in this folder need a GPU; without one they are skipped with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder; pytest passes the whole session's tests."""
    here = [item for item in items if HERE in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.gpu)
        item.add_marker(pytest.mark.timeout(1800))
        if not torch.cuda.is_available():
            reason = f"torch {torch.__version__} finds no CUDA device: tests/gpu runs real FSDP2 and vLLM on one"
            item.add_marker(pytest.mark.skip(reason=reason))
