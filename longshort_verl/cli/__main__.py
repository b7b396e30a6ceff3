# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m longshort_verl.cli``."""

from longshort_verl.cli.app import app

app()
