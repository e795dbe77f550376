# The book with live code, on PyTorch without CUDA and without what only tests need:
#     docker build -t dsnotes .
#     docker run --rm -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 dsnotes
# and open the address that it prints. Mirrors: --build-arg PIP_INDEX_URL=... --build-arg TORCH_INDEX=...
FROM python:3.12-slim-bookworm

ARG PIP_INDEX_URL
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# who runs the cells of a reader is nobody in particular
RUN useradd --create-home reader && install -d -o reader /home/reader/dsnotes
USER reader
WORKDIR /home/reader/dsnotes
COPY --chown=reader . .
RUN LIGHT=1 PIP_NO_CACHE_DIR=1 python make.py book && rm -rf _build/.jupyter_cache _build/.doctrees

EXPOSE 8000 8001
CMD [".venv/bin/python", "website/live.py", "--host", "0.0.0.0", "--port", "8000", "--cells-port", "8001"]
