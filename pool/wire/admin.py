"""What an operator and the daemon say to each other, on admin.sock: a call by name, and its answer."""

from __future__ import annotations

import msgspec

from pool.wire.fields import Count, Message, Name, Text


class AdminCall(Message, frozen=True, tag="call"):
    request: Count
    name: Name
    arguments: dict[str, str | int | float | bool | None] = {}


class AdminReply(Message, frozen=True, tag="reply"):
    """`body` is one JSON document, as bytes in the payload frame; here only how it went."""

    request: Count
    code: Text = ""  #: empty: done; else a code of `pool.errors`
    message: Text = ""
    fields: dict[str, str | int | float | bool | None] = {}


from_admin: msgspec.msgpack.Decoder[AdminCall] = msgspec.msgpack.Decoder(AdminCall)
to_admin: msgspec.msgpack.Decoder[AdminReply] = msgspec.msgpack.Decoder(AdminReply)
