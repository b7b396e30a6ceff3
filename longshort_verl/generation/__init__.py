# SPDX-FileCopyrightText: 2026 The longshort-verl authors
# SPDX-License-Identifier: Apache-2.0
"""Text from a model, whichever engine answers: every stage outside verl's rollout asks a :class:`Generator`.

Chunking, importance, cold-start writing, evaluation and serving take one of these and never learn which it is:
:class:`ScriptedGenerator` (tests and examples), :class:`VLLMGenerator` (vLLM started by this process) or
:class:`EndpointGenerator` (OpenAI-compatible servers). During reinforcement learning verl's own servers answer
instead, through ``adapters/agent_loop.py``.

vllm, transformers and openai are imported when their class is built: each costs seconds that a command which
does not use it should not pay.
"""

from longshort_verl.generation.base import (
    Generator,
    LikelihoodGenerator,
    OnText,
    Prompts,
    ScriptedGenerator,
    StreamingGenerator,
    token_by_token,
)
from longshort_verl.generation.endpoint import EndpointGenerator, EndpointSettings
from longshort_verl.generation.vllm import VLLMGenerator, VLLMSettings

__all__ = [
    "EndpointGenerator",
    "EndpointSettings",
    "Generator",
    "LikelihoodGenerator",
    "OnText",
    "Prompts",
    "ScriptedGenerator",
    "StreamingGenerator",
    "VLLMGenerator",
    "VLLMSettings",
    "token_by_token",
]
