# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.serving.scripted import endpoints


@pytest.fixture
def serve():
    """Starts an endpoint on a free port of 127.0.0.1."""
    with endpoints() as start:
        yield start
