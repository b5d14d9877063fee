# The image of every Kubeflow task: the locked environment and the project's packages.
#   sha=$(git rev-parse --short=12 HEAD)
#   docker build --build-arg GIT_SHA=$sha --tag canvas:$sha .
# then push it under the name that pipelines/cluster.yaml gives as `image`.
FROM python:3.11-slim

# One user, whose number stands as `user` in pipelines/cluster.yaml; .work is where a volume is mounted.
RUN useradd --uid 1000 --create-home canvas \
    && install --directory --owner=canvas --group=canvas /canvas /canvas/.work
WORKDIR /canvas

COPY requirements.lock ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r requirements.lock

COPY pyproject.toml ./
COPY canvas ./canvas
COPY components ./components
COPY evaluation ./evaluation
COPY lifecycle ./lifecycle
COPY pipelines ./pipelines

# Last, so that a commit that changes no code reuses every layer above.
ARG GIT_SHA
RUN test -n "$GIT_SHA" || { echo "build with --build-arg GIT_SHA=\$(git rev-parse --short=12 HEAD)" >&2; exit 1; }
LABEL org.opencontainers.image.title="canvas" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$GIT_SHA"
ENV CANVAS_GIT_SHA="$GIT_SHA" \
    PYTHONPATH=/canvas \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER canvas
