# docker build -t mesm .                           torch for the CPU
# docker build -t mesm --build-arg TORCH=cu126 .   torch for CUDA 12.6; run with --gpus all
# docker run --rm -v "$PWD:/work" mesm locate my.mp4 "a person opens the door"
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TORCH=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# A compiler, for packages without a wheel on this platform.
RUN apt-get update && apt-get install --yes --no-install-recommends build-essential
RUN python -m venv /opt/mesm
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY mesm_core mesm_core
COPY mesm_cli mesm_cli
RUN /opt/mesm/bin/pip install --constraint constraints.txt --index-url https://download.pytorch.org/whl/${TORCH} torch
RUN /opt/mesm/bin/pip install --constraint constraints.txt ".[plot,hub,web]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/mesm /opt/mesm
RUN useradd --create-home --uid 1000 mesm && mkdir /work && chown mesm /work
ENV PATH=/opt/mesm/bin:$PATH
USER mesm
WORKDIR /work
ENTRYPOINT ["mesm"]
CMD ["--help"]
