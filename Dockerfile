# By its tag it is what that names today; a release gives the digest.
ARG BASE_IMAGE=python:3.13-slim
FROM ${BASE_IMAGE} AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/lstm-serve
COPY requirements/serve.txt ./requirements.txt
RUN pip --python /opt/lstm-serve/bin/python install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY service ./service
RUN pip --python /opt/lstm-serve/bin/python install --no-cache-dir --no-deps .

FROM ${BASE_IMAGE}
COPY --from=build /opt/lstm-serve /opt/lstm-serve
COPY models/turbofan.h5 models/turbofan.card.json models/turbofan.golden.npz models/turbofan.profile.json models/turbofan.example.csv /models/
COPY deploy/healthcheck.py /opt/lstm-serve/healthcheck.py
# LSTMSERVE_WORKERS=auto serves by a process for each core of the container's quota.
# The drain: an orchestrator goes on sending requests for some seconds after SIGTERM. MALLOC: memory of large bodies goes
# back to the system when they are answered.
ENV PATH=/opt/lstm-serve/bin:$PATH \
    LSTMSERVE_MODEL=/models/turbofan.h5 \
    LSTMSERVE_HOST=0.0.0.0 \
    LSTMSERVE_ADMIN_PORT=8081 \
    LSTMSERVE_DRAIN_SECONDS=5 \
    MALLOC_MMAP_THRESHOLD_=1048576 \
    MALLOC_TRIM_THRESHOLD_=1048576
USER 10001:10001
EXPOSE 8080 8081
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s \
    CMD ["python", "-I", "-S", "/opt/lstm-serve/healthcheck.py"]
ENTRYPOINT ["lstm-serve"]
CMD ["serve"]
