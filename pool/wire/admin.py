"""Messages between pool-admin and the daemon, on admin.sock: a call by name, and its answer."""

from __future__ import annotations

import msgspec

from pool.wire.fields import Count, Message, Name, Scalars, Text


class AdminCall(Message, frozen=True, tag="call"):
    request: Count
    name: Name
    arguments: Scalars = {}


class AdminReply(Message, frozen=True, tag="reply"):
    """Whether the call succeeded. Its answer is one JSON document, in the payload frame."""

    request: Count
    code: Text = ""  #: empty: it succeeded; else a code of `pool.errors`
    message: Text = ""
    fields: Scalars = {}


from_admin: msgspec.msgpack.Decoder[AdminCall] = msgspec.msgpack.Decoder(AdminCall)
to_admin: msgspec.msgpack.Decoder[AdminReply] = msgspec.msgpack.Decoder(AdminReply)
