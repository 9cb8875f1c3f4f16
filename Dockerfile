# A d2m-node that keeps all it has in /var/lib/d2m-node. How to run it stands in docs/OPERATIONS.md.
#
#   docker build --tag d2m-node .
#
# On machines without a GPU, --build-arg PIP_EXTRA_INDEX_URL=URL of an index with torch's builds for
# the CPU makes a much smaller image.

FROM python:3.11-slim AS build
# fastecdsa is compiled where there is no wheel for it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libgmp-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/d2m-node
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY protocol protocol
COPY d2m_node d2m_node
# The lock names the tools of development too: as a constraint it fixes versions, and adds nothing.
RUN /opt/d2m-node/bin/pip install --no-cache-dir --constraint requirements.lock .

FROM python:3.11-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgmp10 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 9393 --home-dir /var/lib/d2m-node --shell /usr/sbin/nologin d2m-node \
    && install --directory --mode 0700 --owner d2m-node /var/lib/d2m-node
COPY --from=build /opt/d2m-node /opt/d2m-node
ENV PATH=/opt/d2m-node/bin:$PATH \
    D2M_DATA_DIR=/var/lib/d2m-node \
    PYTHONDONTWRITEBYTECODE=1
USER 9393
WORKDIR /var/lib/d2m-node
VOLUME /var/lib/d2m-node
EXPOSE 9393
STOPSIGNAL SIGTERM
# Answered by the running node. The first start reads the chain's history before it answers.
HEALTHCHECK --interval=30s --timeout=10s --start-period=15m --retries=3 \
    CMD ["d2m-node", "status", "--json"]
ENTRYPOINT ["d2m-node"]
CMD ["run"]
