# seqprune on a processor. Not built in CI yet: see docs/releases.md.
#   docker build -t seqprune . && docker run --rm -v "$PWD:/work" seqprune prune yolov8n.pt --data coco128.yaml --target flops=0.8
FROM python:3.12-slim AS build
COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.12-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir /wheels/*.whl \
    && useradd --create-home pruner
USER pruner
WORKDIR /work
ENTRYPOINT ["seqprune"]
CMD ["--help"]
