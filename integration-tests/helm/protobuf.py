"""Reads the one kind of object that helm sends as protobuf: the secrets in which it keeps its releases.

https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding"""

MAGIC = b"k8s\x00"


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """(number, value) of each field of a message."""
    at, found = 0, []
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
            case 2:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            case other:
                raise ValueError(f"wire type {other} is not expected")
        found.append((tag >> 3, value))
    return found


def _texts(entries: list[bytes]) -> dict[str, bytes]:
    """A map of messages with key (1) and value (2)."""
    pairs = [dict(fields(entry)) for entry in entries]
    return {pair[1].decode(): pair.get(2, b"") for pair in pairs}


def _all(message, number: int) -> list[bytes]:
    return [value for found, value in message if found == number]


def _text(message, number: int) -> str:
    return (_all(message, number) or [b""])[-1].decode()


def secret(body: bytes) -> dict:
    """The secret in an envelope of Kubernetes, as its JSON would be."""
    import base64

    assert body.startswith(MAGIC)
    envelope = fields(body[len(MAGIC) :])
    kind = fields(_all(envelope, 1)[0])
    assert (_text(kind, 1), _text(kind, 2)) == ("v1", "Secret"), kind
    message = fields(_all(envelope, 2)[0])
    meta = fields(_all(message, 1)[0])
    metadata = {"name": _text(meta, 1), "namespace": _text(meta, 3), "resourceVersion": _text(meta, 6)}
    metadata["labels"] = {key: value.decode() for key, value in _texts(_all(meta, 11)).items()}
    data = {key: base64.b64encode(value).decode() for key, value in _texts(_all(message, 2)).items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": _text(message, 3), "data": data}
