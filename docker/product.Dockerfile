# The agent and the control plane, each as an image: docker/build --target agent | control-plane.
# Classic syntax on purpose: it builds on engines without BuildKit.
ARG BASE=debian:13-slim
FROM ${BASE} AS package

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG DEBIAN_FRONTEND=noninteractive

RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3-venv tini \
 && rm -rf /var/lib/apt/lists/*

# A site's own certificate authorities (*.crt); see docker/README.md.
COPY docker/ca-certificates/ /usr/local/share/ca-certificates/
RUN update-ca-certificates

# The dependencies alone first: they change less often than the code. By hashes: what was tested.
COPY requirements.lock requirements-build.lock /usr/src/hpc-agent/
RUN python3 -m venv /opt/hpc-agent \
 && PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    /opt/hpc-agent/bin/pip install --no-cache-dir --require-hashes \
        -r /usr/src/hpc-agent/requirements-build.lock -r /usr/src/hpc-agent/requirements.lock

COPY pyproject.toml LICENSE README.md /usr/src/hpc-agent/
# hpc_agent has symbolic links to these two.
COPY templates /usr/src/hpc-agent/templates
COPY slurm /usr/src/hpc-agent/slurm
COPY docs /usr/src/hpc-agent/docs
COPY hpc_agent /usr/src/hpc-agent/hpc_agent
RUN /opt/hpc-agent/bin/pip install --no-cache-dir --no-deps --no-build-isolation \
        /usr/src/hpc-agent \
 && ln -s /opt/hpc-agent/bin/hpc-agent /usr/local/bin/ \
 && useradd --create-home --uid 1000 --shell /bin/bash hpc-agent
ENTRYPOINT ["/usr/bin/tini", "--", "hpc-agent"]


# Its Slurm client and munge's key must be those of the cluster: mount /etc/slurm and /run/munge, and
# work_dir at the path that compute nodes know. Its user must be one that the cluster knows, too.
FROM package AS agent
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install -y --no-install-recommends openssh-client slurm-client \
 && rm -rf /var/lib/apt/lists/* /etc/munge/munge.key \
 && install -d -o hpc-agent -g hpc-agent -m 0700 /var/lib/hpc-agent
USER hpc-agent
VOLUME /var/lib/hpc-agent
WORKDIR /home/hpc-agent
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s CMD hpc-agent status | grep -q 'runs on'
# With /etc/hpc-agent/agent.yaml, where nothing else is named.
CMD ["start"]


FROM package AS control-plane
RUN install -d -o hpc-agent -g hpc-agent -m 0700 /var/lib/hpc-agent-control-plane
USER hpc-agent
WORKDIR /var/lib/hpc-agent-control-plane
VOLUME /var/lib/hpc-agent-control-plane
# So that commands in the container (`docker exec`) find it without --home.
ENV DAGSTER_HOME=/var/lib/hpc-agent-control-plane
EXPOSE 8443 3000
HEALTHCHECK --interval=30s --timeout=20s --start-period=120s \
    CMD hpc-agent control-plane status | grep -q '^UI '
# Its own loopback is nobody's: who reaches the two ports is for the engine to say (`docker run --publish`).
CMD ["control-plane", "start", "--host", "0.0.0.0", "--webserver-host", "0.0.0.0"]
