"""Stores by address: the Hugging Face hub, and what fsspec reaches."""

from __future__ import annotations

from cembench.interop.hub.address import HUGGING_FACE, Address
from cembench.interop.hub.store import Store
from cembench.util.extras import require_package


def store_of(address: Address) -> Store:
    """Return the store of an address.

    Raises:
        CembenchError: when a package is missing, or it cannot be reached.
    """
    if address.scheme != HUGGING_FACE:
        from cembench.interop.hub.file_store import FileStore

        return FileStore(address)
    require_package("huggingface_hub", "'cembench[hub]'")
    from cembench.interop.hub.huggingface import HubStore

    return HubStore(address)
