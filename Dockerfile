# The search API on a CPU. For a GPU, build with TORCH_INDEX=https://download.pytorch.org/whl/cu130.
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN useradd --create-home anyseek && install -d -o anyseek /data
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY *.py py.typed ./
COPY model model
COPY storage storage
COPY indexer indexer
COPY search search
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url "$TORCH_INDEX" ".[postgres]"

USER anyseek
WORKDIR /data
ENV ANYSEEK_LIBRARY=/data/library.anyseek
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
ENTRYPOINT ["anyseek"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
