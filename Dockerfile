# verl's own image for vLLM 0.24, with verl 0.9.1 and this package. The image has CUDA 13.0, Python 3.12, torch 2.11,
# flash-attn 2.8.3 and verl's dependencies, but not verl.
# This file has not been built yet. The base image is the one that verl's docker/Dockerfile.stable.vllm and its CI use
# for vLLM 0.24; it needs a driver of at least 580.65.06.
#
#   docker build -t longshort-verl .
#   docker run --gpus all --shm-size=10g --ulimit nofile=65535 -it longshort-verl longshort doctor
ARG BASE=verlai/verl:vllm024.dev2
FROM ${BASE}

ENV PIP_NO_CACHE_DIR=1 PIP_BREAK_SYSTEM_PACKAGES=1

# Constraints: pip fails if an installation would change one of these packages.
RUN pip freeze | grep -iE '^(torch|torchvision|torchaudio|vllm|flash[-_]attn|triton)==' >/opt/image.txt \
    && cat /opt/image.txt \
    && grep -q '^torch==2.11.0' /opt/image.txt && grep -q '^vllm==0.24.0' /opt/image.txt

# The versions that were run on a CPU (README). The image has verl's other dependencies; only transformers and tensordict
# are outside verl's range there.
RUN pip install --no-deps verl==0.9.1 \
    && pip install -c /opt/image.txt transformers==5.9.0 tensordict==0.10.0 TransferQueue==0.1.11

WORKDIR /workspace/longshort-verl
COPY pyproject.toml MANIFEST.in README.md LICENSE ./
COPY longshort_verl longshort_verl
# Installs the small packages that the image lacks, such as math-verify.
RUN pip install -c /opt/image.txt . \
    && python3 -c "import importlib.metadata as m; assert 'longshort' in m.entry_points(group='verl.plugins').names"

COPY recipes recipes
COPY examples examples
CMD ["longshort", "doctor"]
