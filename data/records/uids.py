"""The uids of images: 32 hexadecimal digits each."""

import hashlib


def uid_of(image: str) -> str:
    """The uid of an image that brings none of its own: a hash of what lists call it."""
    return hashlib.blake2b(image.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
