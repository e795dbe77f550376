"""The kernels that run the notebooks talk with the build by encrypted messages.

The channels are ports of this machine, which other users of it could listen to; without this every
kernel warns of it.
"""

from __future__ import annotations

import zmq
from jupyter_client import KernelManager


def setup(app):
    if zmq.has("curve"):
        KernelManager.transport_encryption.default_value = "auto"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
