"""The format of what page and server send each other, and the check of everything that a page sends.

The page sends a message, and the server replies to each with exactly one packet, in order. The page never has more than one step
under way, so a slow link makes a slow game and never a queue of old pictures.

    page -> server    text, one JSON object:  {"do": "step", "key": "LEFT", "id": 17}
                      bytes: a picture file (PNG, JPEG, BMP, WebP, GIF) from which dreams can start
    server -> page    bytes: 4 for the length of the JSON part | the JSON part | what does not fit into JSON, mostly RGB pixels

`MESSAGES` in player.py lists all messages with their fields. A packet repeats the message's `id` and names in `kind` what it
holds: "error" with a sentence for a message that cannot be carried out.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from video_tokenizer.errors import InputError
from video_tokenizer.training.results import plain

MAX_TEXT_LENGTH = 2_000
"""characters of a message; the page's have a few dozen"""
MAX_MESSAGE_BYTES = 8 * 2**20
"""only a picture is this large; a larger message ends the connection"""
MAX_INT = 2**31 - 1


@dataclass(frozen=True)
class Field:
    """One value in a message: its type (object: the player checks it), its default, and what is allowed."""

    kind: type = object
    default: Any = None
    low: float = 0
    high: float = MAX_INT
    choices: tuple[str, ...] = ()

    def read(self, name: str, value: Any) -> Any:
        """The value, or the default for None. Raises InputError for a value that is not allowed."""
        if value is None:
            return self.default
        if self.kind is object:
            return value
        kinds = (int, float) if self.kind is float else (self.kind,)
        if type(value) not in kinds:
            raise InputError(f"{name} is {str(value)[:40]!r}; it must be of type {self.kind.__name__}")
        if self.kind in (int, float) and not self.low <= value <= self.high:
            raise InputError(f"{name} is {str(value)[:40]}; it must lie between {self.low} and {self.high}")
        if self.choices and value not in self.choices:
            raise InputError(f"{name} is {str(value)[:40]!r}; choose one of {', '.join(self.choices)}")
        return value


@dataclass(frozen=True)
class Reply:
    """What a packet will hold: its kind, the bytes, and the facts for its JSON part, in which NaN becomes null."""

    kind: str
    payload: bytes = b""
    facts: dict[str, Any] = field(default_factory=dict)

    def packet(self, **more: Any) -> bytes:
        """The reply as bytes. more: facts that only the server knows, such as the message's id."""
        head = json.dumps(plain({"kind": self.kind} | self.facts | more), separators=(",", ":")).encode()
        return struct.pack("<I", len(head)) + head + self.payload


@dataclass(frozen=True)
class Message:
    """One kind of message: the player's method that carries it out, and the fields that are its arguments."""

    method: Callable[..., Reply]
    fields: Mapping[str, Field] = field(default_factory=dict)
    uses_models: bool = True
    """False for slow work that must not keep the other players' models waiting; it runs in a thread of its own"""


def read_message(text: str, messages: Mapping[str, Message]) -> tuple[Message, int, dict[str, Any]]:
    """The kind of message, its id, and all its fields with defaults filled in. Raises InputError for anything else."""
    if len(text) > MAX_TEXT_LENGTH:
        raise InputError(f"a message of {len(text):,} characters is too long; send at most {MAX_TEXT_LENGTH:,}")
    try:
        sent = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError('a message must be JSON such as {"do": "step", "key": "LEFT"}') from None
    name = sent.pop("do", None) if isinstance(sent, dict) else None
    if not isinstance(name, str) or name not in messages:
        raise InputError(f'a message must say what to "do": {", ".join(messages)}')
    number, fields = Field(int, 0).read("id", sent.pop("id", None)), messages[name].fields
    unknown = sorted(set(sent) - set(fields))
    if unknown:
        raise InputError(f"{name} has no {unknown[0][:40]!r}; it has {', '.join(fields) or 'no fields'}")
    return messages[name], number, {key: field.read(key, sent.get(key)) for key, field in fields.items()}


def read_packet(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON part and the bytes of a reply, for clients written in Python."""
    (length,) = struct.unpack_from("<I", data)
    return json.loads(data[4 : 4 + length]), data[4 + length :]
