"""What the page and the server say to each other.

The page asks and the server answers, each question with exactly one packet, in the order asked. The page never has more than one
step on its way, so a slow link makes a slow game and never a queue of old pictures.

    page -> server    text, one JSON object:  {"do": "step", "key": "LEFT", "id": 17}
                      bytes: a picture file (PNG, JPEG, BMP, WebP, GIF) that dreams can begin with
    server -> page    bytes: 4 for the length of the JSON part | the JSON part | what does not fit into JSON, mostly RGB pixels

`QUESTIONS` lists all questions with their fields. A packet repeats the question's `id` and says in `kind` what it holds; what
cannot be done is answered with kind "error" and a sentence.
"""

import json
import struct
from dataclasses import dataclass
from typing import Any

from video_tokenizer.training.command_line import InputError
from video_tokenizer.training.results import plain

LARGEST_QUESTION = 2_000
"""characters; what a page asks has a few dozen"""
LARGEST_MESSAGE = 8 * 2**20
"""bytes; only a picture is this large, and a larger message ends the connection"""
WHOLE = 2**31 - 1


@dataclass(frozen=True)
class Field:
    """One value of a question: its type, what it is when not given, and what is allowed."""

    kind: type
    default: Any = None
    low: float = 0
    high: float = WHOLE
    choices: tuple[str, ...] = ()

    def read(self, name: str, value: Any) -> Any:
        """The value, where it may be used. Raises InputError otherwise."""
        if value is None:
            return self.default
        kinds = (int, float) if self.kind is float else (self.kind,)
        if type(value) not in kinds:
            raise InputError(f"{name} is {str(value)[:40]!r}; it must be of type {self.kind.__name__}")
        if self.kind in (int, float) and not self.low <= value <= self.high:
            raise InputError(f"{name} is {str(value)[:40]}; it must lie between {self.low} and {self.high}")
        if self.choices and value not in self.choices:
            raise InputError(f"{name} is {str(value)[:40]!r}; choose one of {', '.join(self.choices)}")
        return value


QUESTIONS: dict[str, dict[str, Field]] = {
    # load a world from the list; its answer describes it
    "open": {"world": Field(str, "")},
    # begin a dream: after a new game in the emulator (index: its seed), one of the world's own beginnings, or the picture sent
    "begin": {
        "start": Field(str, "stored", choices=("game", "stored", "picture")),
        "index": Field(int, 0),
        "seed": Field(int, 0),
        "mirror": Field(bool, False),
    },
    # begin the dream again where the real game is now
    "resync": {"seed": Field(int, 0)},
    # the next frame, under a key of the game or under an action of the world
    # inspect: with the tokens' confidence
    "step": {"key": Field(str), "action": Field(int), "inspect": Field(bool, False)},
    # draw tokens otherwise from the next frame on; top_k 0 draws among all
    "sampling": {
        "temperature": Field(float, low=0, high=10),
        "num_steps": Field(int, low=1, high=64),
        "top_k": Field(int, low=0, high=100_000),
        "top_p": Field(float, low=0.01, high=1),
        "order": Field(str, choices=("confidence", "random")),
    },
    # the sampling steps of the newest frame, as pictures; only after a step with inspect
    "passes": {},
    # what every action looks like, and what each latent code stands for
    "codes": {},
    "shares": {},
    # the game so far as a file
    "film": {"format": Field(str, "gif", choices=("gif", "mp4", "json"))},
}


def read_question(text: str) -> dict[str, Any]:
    """One question with all its fields, defaults filled in, and its `id`. Raises InputError for anything else."""
    if len(text) > LARGEST_QUESTION:
        raise InputError(f"a question of {len(text):,} characters is too long; at most {LARGEST_QUESTION:,}")
    try:
        asked = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError('a question must be JSON such as {"do": "step", "key": "LEFT"}') from None
    name = asked.get("do") if isinstance(asked, dict) else None
    if not isinstance(name, str) or name not in QUESTIONS:
        raise InputError(f'a question must say what to "do": {", ".join(QUESTIONS)}')
    fields = QUESTIONS[name] | {"id": Field(int, 0)}
    unknown = sorted(set(asked) - set(fields) - {"do"})
    if unknown:
        raise InputError(f"{name} has no {unknown[0][:40]!r}; it has {', '.join(fields)}")
    return {"do": name} | {key: field.read(key, asked.get(key)) for key, field in fields.items()}


@dataclass(frozen=True)
class Answer:
    """What a packet will hold."""

    kind: str
    payload: bytes
    facts: dict[str, Any]

    def packet(self, **more: Any) -> bytes:
        """The answer as bytes. more: facts that only the server knows, such as the number of the question."""
        head = json.dumps(plain({"kind": self.kind} | self.facts | more), separators=(",", ":")).encode()
        return struct.pack("<I", len(head)) + head + self.payload


def answer(kind: str, payload: bytes = b"", **facts: Any) -> Answer:
    """An answer of one kind. facts: its JSON part; NaN becomes null."""
    return Answer(kind, payload, facts)


def read_packet(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON part and the bytes of an answer, for clients written in Python."""
    (length,) = struct.unpack_from("<I", data)
    return json.loads(data[4 : 4 + length]), data[4 + length :]
