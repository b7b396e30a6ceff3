# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: ratios measured side by side in one run, never part of a test. `make bench` runs them."""
