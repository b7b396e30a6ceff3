# Copyright 2026 The longshort-verl authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
from longshort_verl.generation.vllm_engine import VLLMGenerator, VLLMSettings

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
