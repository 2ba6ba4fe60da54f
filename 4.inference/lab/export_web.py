"""Build the page in which worlds are played without a server: the networks as ONNX files, and all else that a browser needs.

    make web
    python 4.inference/lab/export_web.py --worlds assets/worlds/breakout --output build/web

Why the caches are inputs and outputs of the networks, and what it costs: web/README.md.
"""

import hashlib
import html
import json
import logging
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from export_world import to_eight_bits
from torch import Tensor, nn

from dynamics_model.models.maskgit import MaskGIT
from video_tokenizer.data.clips import to_video
from video_tokenizer.errors import InputError
from video_tokenizer.models.st_transformer import KeysValues, SpaceTimeTransformer
from video_tokenizer.models.video_tokenizer import VideoTokenizer
from video_tokenizer.training.atomic_files import replace_folder, temporary_neighbour
from video_tokenizer.training.checkpoint import from_eight_bits
from video_tokenizer.training.command_line import parse_config, run_script
from world_model.play.world_registry import LoadedWorld
from world_model.world import WorldModel

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "web"
SHARED = REPOSITORY / "4.inference" / "world_model" / "play" / "page"
SHARED_MODULES = ("buttons", "game", "input", "inspector", "keys", "screens", "settings", "stats")
SHARED_FILES = (*(f"{name}.js" for name in SHARED_MODULES), "style.css")
"""what the page has in common with the play page"""
RUNTIME = SOURCE / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""onnxruntime-web for the CPU; the builds that also know WebGPU are about twice as large"""
DECODING_PASSES = 2
"""where the page begins; the course's default of 4 costs two thirds more a frame and is no better (sampling_steps.json)"""
PAGE_CONTROLS = ("num_steps", "temperature", "top_p")
"""the sampling settings that the page knows"""


@dataclass(frozen=True)
class WebConfig:
    """Build the page that plays worlds without a server."""

    worlds: tuple[str, ...] = tuple(f"assets/worlds/{game}" for game in ("breakout", "pong", "freeway"))
    """folders of the worlds, of which the page opens the first"""
    output: str = "build/web"
    """folder to build into; one that was built before is replaced"""
    course: str = "https://github.com/OWNER/video-world-models"
    """address of the course, to which the page links"""


class NextFrame(nn.Module):
    """One pass of the dynamics model over one frame, as a function of its cache: what a rollout's step calls a few times.

    tokens: (1, N) int32, masked ones are K. action: (1,) int32, -1 unknown. position: (1,) int32, frames seen so far.
    cache: (blocks, 2, N, heads, window - 1, head_dim), keys and values of earlier frames. Returns logits (N, K) and the frame's
    own keys and values (blocks, 2, N, heads, 1, head_dim), which the caller puts into the cache once no token is masked.

    The frame with number f lies in slot f % (window - 1). Attention does not care about the order, because positions were
    added to the frames themselves. So the cache is never moved, and `position` says how much of it is filled.
    """

    def __init__(self, model: MaskGIT):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, action: Tensor, position: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        model = self.model
        x = model.positions(model.token_embedding(tokens.long()[:, None]), position.long())  # (1, 1, N, E)
        conditioning = model._conditioning(action.long()[:, None])
        x, own = model.transformer.run(x, filled_slots(position, cache), keys_and_values(cache), conditioning)
        return model.to_logits(x)[0, 0], stacked(own)


class NextPicture(nn.Module):
    """The tokenizer's decoder for one frame, with its cache as in `NextFrame`. Returns the picture (H, W, 3) uint8 as well."""

    def __init__(self, tokenizer: VideoTokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, tokens: Tensor, position: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        tokenizer = self.tokenizer
        codes = tokenizer.indices_to_codes(tokens.long()[:, None])  # (1, 1, N, D)
        x = tokenizer.decoder_positions(tokenizer.from_codes(codes), position.long())  # (1, 1, N, E)
        x, own = tokenizer.decoder.run(x, filled_slots(position, cache), keys_and_values(cache))
        video = tokenizer.patch_unembedding(x).add(tokenizer.background).clamp(0, 1)  # (1, 1, 3, H, W)
        return (video[0, 0].permute(1, 2, 0) * 255).round().to(torch.uint8), stacked(own)


class NextAction(nn.Module):
    """The action prior. older, newer: (1, N) int32 tokens; previous: (1,) int32, -1 unknown. Returns (A,) probabilities."""

    def __init__(self, model: MaskGIT):
        super().__init__()
        assert model.action_prior is not None
        self.prior = model.action_prior

    def forward(self, older: Tensor, newer: Tensor, previous: Tensor) -> Tensor:
        return self.prior(older.long(), newer.long(), previous.long())[0].softmax(dim=-1)


def filled_slots(position: Tensor, cache: Tensor) -> Tensor:
    """(1, window) bool: the slots of the cache that hold a frame, and the present frame."""
    return torch.cat([torch.arange(cache.shape[4]) < position, torch.ones(1, dtype=torch.bool)])[None]


def keys_and_values(cache: Tensor) -> list[KeysValues]:
    """The cache as the transformer takes it: a pair for each block."""
    return [(block[0], block[1]) for block in cache]


def stacked(own: list[KeysValues]) -> Tensor:
    """The reverse: pairs (N, heads, 1, head_dim) of every block as one tensor."""
    return torch.stack([torch.stack(pair) for pair in own])


def empty_cache(transformer: SpaceTimeTransformer, num_tokens: int) -> Tensor:
    """Zeros (blocks, 2, N, heads, window - 1, head_dim)."""
    attention: Any = transformer.blocks[0].time_attention
    head_dim = attention.to_qkv.out_features // 3 // attention.num_heads
    return torch.zeros(len(transformer.blocks), 2, num_tokens, attention.num_heads, transformer.window - 1, head_dim)


def to_onnx(network: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> bytes:
    """A network as an ONNX file in which matrices are 8-bit integers with one scale per row. inputs: an example of each."""
    examples = tuple(value.clone() for value in inputs.values())  # the exporter takes one tensor given twice for one input
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names torchvision, which is not needed
        program = torch.onnx.export(
            network.eval(), examples, input_names=list(inputs), output_names=outputs, dynamo=True, verbose=False
        )
    assert program is not None
    model = program.model_proto
    pack_matrices(model.graph)
    for part in [*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        del part.metadata_props[:]  # from which line of Python a node came: a fifth of the file
    return model.SerializeToString()


def pack_matrices(graph: Any) -> None:
    """Store each matrix of an ONNX graph as int8 and let a DequantizeLinear node restore it, where that loses nothing.

    The weights went through `rounded` before, but the exporter may have transposed them, so rows are looked for along both axes.
    """
    from onnx import helper, numpy_helper

    for constant in list(graph.initializer):
        values = numpy_helper.to_array(constant)
        if values.dtype != np.float32 or values.ndim != 2:
            continue
        for axis in (0, 1):
            small, scales = to_eight_bits({"rows": torch.from_numpy(np.moveaxis(values, axis, 0).copy())})
            if np.array_equal(np.moveaxis(from_eight_bits(small, scales)["rows"].numpy(), 0, axis), values):
                packed, name = np.moveaxis(small["rows"].numpy(), 0, axis), constant.name
                graph.initializer.remove(constant)
                graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(packed), f"{name}.int8"))
                graph.initializer.append(numpy_helper.from_array(scales["rows"].float().numpy(), f"{name}.scales"))
                node = helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scales"], [name], axis=axis)
                graph.node.insert(0, node)
                break


def rounded(model: nn.Module) -> None:
    """Round a model's weights to 8 bits, in place. The reference worlds stay what they are: they were rounded before."""
    small, scales = to_eight_bits(model.state_dict())
    model.load_state_dict(from_eight_bits(small, scales))


def write_world(folder: Path, output: Path) -> dict[str, Any]:
    """Write a world's networks, its starts and what the page has to know. Returns its name and the bytes of all its files."""
    world = WorldModel.load(folder, "cpu", precision="float32")
    dynamics, tokenizer = world.dynamics, world.tokenizer
    if not isinstance(dynamics, MaskGIT) or not isinstance(tokenizer, VideoTokenizer):
        models = f"{tokenizer.config.model} and {dynamics.config.model}"
        raise InputError(f"{folder} is a world of {models}; only the main line's st-fsq and maskgit can be exported")
    if not len(world.start_frames):
        raise InputError(f"{folder} has no start frames; train its dynamics model on a recording")
    rounded(dynamics)
    rounded(tokenizer)
    output.mkdir(parents=True)

    num_tokens = dynamics.tokens_per_frame
    tokens, number = torch.zeros(1, num_tokens, dtype=torch.int32), torch.ones(1, dtype=torch.int32)
    caches = {"dynamics": empty_cache(dynamics.transformer, num_tokens), "decoder": empty_cache(tokenizer.decoder, num_tokens)}
    inputs = {"tokens": tokens, "action": number, "position": number, "cache": caches["dynamics"]}
    networks = {"dynamics": to_onnx(NextFrame(dynamics), inputs, ["logits", "own"])}
    inputs = {"tokens": tokens, "position": number, "cache": caches["decoder"]}
    networks["decoder"] = to_onnx(NextPicture(tokenizer), inputs, ["picture", "own"])
    if dynamics.action_prior is not None:
        inputs = {"older": tokens, "newer": tokens, "previous": number}
        networks["prior"] = to_onnx(NextAction(dynamics), inputs, ["probabilities"])
    for name, content in networks.items():
        (output / f"{name}.onnx").write_bytes(content)
    (output / "starts.rgb").write_bytes(world.start_frames[:, -1].tobytes())  # the picture that a dream shows first

    facts = LoadedWorld(output.name, world, None, "this page holds no emulator").description()
    facts["ball_game"] = False  # it counts no balls, so it never offers to serve one
    if facts["action_map"].get("FIRE") == facts["action_map"].get("NOOP"):
        facts["keys"].pop(" ", None)  # in this world FIRE does nothing
    facts["sampling_controls"] = [control for control in facts["sampling_controls"] if control["name"] in PAGE_CONTROLS]
    for control in facts["sampling_controls"]:
        if control["name"] == "num_steps":
            control["default"] = DECODING_PASSES
    facts |= {
        "grid": list(dynamics.grid_size),
        "codebook_size": dynamics.codebook_size,
        "caches": {name: list(cache.shape) for name, cache in caches.items()},
        "start_tokens": encode_starts(tokenizer, world.start_frames),
        "start_actions": world.start_actions.tolist(),
        "key_weights": (world.key_probabilities() ** world.metadata.key_guidance).tolist() if "prior" in networks else None,
    }
    (output / "world.json").write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")
    return {"name": output.name, "bytes": sum(file.stat().st_size for file in output.iterdir())}


@torch.no_grad()
def encode_starts(tokenizer: VideoTokenizer, frames: np.ndarray) -> list[list[list[int]]]:
    """The tokens of start frames (S, T, H, W, 3), frame by frame as `WorldModel.reset` encodes them: S lists of T lists of N."""
    clips = []
    for clip in frames:
        cache, tokens = None, []
        for frame in to_video(clip[None], torch.device("cpu"))[0]:  # (C, H, W)
            encoded, cache = tokenizer.encode_frame(frame[None], cache)
            tokens.append(encoded.indices[0].tolist())
        clips.append(tokens)
    return clips


def stamp(folder: Path) -> None:
    """Write a digest of all files into the service worker, which keeps the files of one build apart from those of the next."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        digest.update(file.read_bytes())
    worker = folder / "service_worker.js"
    worker.write_text(worker.read_text(encoding="utf-8").replace("BUILD", digest.hexdigest()[:16]), encoding="utf-8")


def main() -> None:
    config = parse_config(WebConfig)
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError:
        raise InputError('the export needs onnx and onnxscript; install them with: pip install -e ".[web]"') from None
    if not all((RUNTIME / name).exists() for name in RUNTIME_FILES):
        raise InputError("web/node_modules has no onnxruntime-web; fetch it with: npm ci --prefix web")
    output, folders = Path(config.output), {Path(os.path.abspath(folder)).name: Path(folder) for folder in config.worlds}
    if len(folders) < len(config.worlds) or not folders:
        raise InputError(f"--worlds {' '.join(config.worlds)}: give one or more folders with different names")
    if output.exists() and not (output / "worlds.json").exists():
        raise InputError(f"--output {output} exists and is no page that was built before; give another folder")

    output.parent.mkdir(parents=True, exist_ok=True)
    building = temporary_neighbour(output)
    try:
        shutil.copytree(SOURCE, building, ignore=shutil.ignore_patterns("node_modules", ".npmrc", "*.md", "package*.json"))
        for folder, names in {SHARED: SHARED_FILES, RUNTIME: RUNTIME_FILES}.items():
            for name in names:
                shutil.copy(folder / name, building)
        page = building / "index.html"
        page.write_text(page.read_text(encoding="utf-8").replace(WebConfig.course, html.escape(config.course)), encoding="utf-8")
        worlds = []
        for name, folder in folders.items():
            worlds.append(write_world(folder, building / "worlds" / name))
            print(f"{folder}: {worlds[-1]['bytes'] / 1e6:.1f} MB")
        sizes = {"worlds": worlds, "runtime_bytes": (building / RUNTIME_FILES[-1]).stat().st_size}
        (building / "worlds.json").write_text(json.dumps(sizes), encoding="utf-8")
        stamp(building)
        replace_folder(building, output)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    total = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"{output}: {total / 1e6:.1f} MB; serve it with: python -m http.server --directory {output}")


if __name__ == "__main__":
    run_script(main)
