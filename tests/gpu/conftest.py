# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Everything in this folder needs a GPU and is skipped, with the reason, where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder; the hook is given the whole session's tests."""
    here = [item for item in items if HERE in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.gpu)
        item.add_marker(pytest.mark.timeout(1800))
        if not torch.cuda.is_available():
            reason = f"torch {torch.__version__} finds no CUDA device: tests/gpu runs real FSDP2 and vLLM on one"
            item.add_marker(pytest.mark.skip(reason=reason))
