"""The pictures of the texts are those that the shipped worlds make."""

import numpy as np
import pytest
import torch
from PIL import Image
from script_runner import call, load_script
from structure_checks import REPOSITORY

from action_lab.illustrations import encode_games, play_at_random, weights_of_cells
from latent_action_model.loading import load_latent_action_model
from latent_action_model.models.action_encoder import STILL
from tokenizer_lab.illustrations import spatial_attention
from video_tokenizer import load_tokenizer
from video_tokenizer.data.clips import to_video
from video_tokenizer.games.emulator import Game
from video_tokenizer.training.checkpoint import load_checkpoint
from video_tokenizer.training.results import read_json

WORLD = REPOSITORY / "assets" / "worlds" / "breakout"
PICTURES = {
    "1.video-tokenizer": ("patches.png", "positions.png", "attention.png", "causal_mask.png", "quantizer.png"),
    "2.latent-action-model": ("pooling.png", "latents.png", "collapse.png"),
    "3.dynamics-model": ("filling_in.png", "filling_in.gif"),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for chapter in PICTURES:
        assert call(REPOSITORY / chapter / "lab" / "illustrate.py", "--world", WORLD, "--output", folder / chapter) == 0
    return folder


@pytest.mark.parametrize("chapter, name", [(chapter, name) for chapter, names in PICTURES.items() for name in names])
def test_a_picture_is_what_illustrate_draws_from_the_shipped_world(drawn, chapter, name):
    """Other versions of matplotlib place letters otherwise, other processors draw other tokens; what is shown stays."""
    ours = Image.open(REPOSITORY / "assets" / chapter / name).convert("RGB")
    again = Image.open(drawn / chapter / name).convert("RGB")
    assert abs(ours.width - again.width) < 20 and abs(ours.height - again.height) < 20
    again = again.resize(ours.size)
    small = [np.asarray(picture.resize((60, 40), Image.Resampling.BOX), np.float32) for picture in (ours, again)]
    assert np.abs(small[0] - small[1]).mean() < 4


def test_the_attention_shown_is_the_one_that_is_computed():
    """With it, the block's update of the last frame comes out as the block computes it."""
    tokenizer = load_tokenizer(WORLD / "tokenizer.pt")
    clip = to_video(load_checkpoint(WORLD / "dynamics.pt", "dynamics")["start_frames"][:1].numpy())
    weights = spatial_attention(tokenizer, clip, 1)  # (heads, N, N)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(weights.shape[:2]))
    seen: dict[str, torch.Tensor] = {}
    attention = tokenizer.encoder.blocks[1].space_attention
    hook = attention.register_forward_hook(lambda _, given, output: seen.update(x=given[0][-1:], update=output[0][-1]))
    with torch.no_grad():
        tokenizer.encode(clip)
        hook.remove()
        _, _, values = attention.to_qkv(seen["x"])[0].view(64, 3, attention.num_heads, -1).permute(1, 2, 0, 3)  # (heads, N, d)
        update = attention.output((weights @ values).transpose(0, 1).flatten(1))
    assert torch.allclose(update, seen["update"], atol=1e-4)


def test_the_weights_shown_are_those_with_which_the_encoder_pools():
    """With them, the encoder's cells become the vector that goes on. 0.001 of the change goes to frames at rest."""
    encoder = load_latent_action_model(WORLD / "latent_action_model.pt").encoder
    video = to_video(load_checkpoint(WORLD / "dynamics.pt", "dynamics")["start_frames"].numpy())[:, 3:6]
    seen: dict[str, torch.Tensor] = {}
    encoder.to_channels.register_forward_hook(lambda _, given, output: seen.update(cells=output))
    encoder.to_latent.register_forward_hook(lambda _, given, output: seen.update(pooled=given[0]))
    with torch.no_grad():
        encoder(video)
    before, after = video[:, :-1].flatten(0, 1), video[:, 1:].flatten(0, 1)
    weights = weights_of_cells(before, after).flatten(1)  # (M, N)
    change = (after - before).abs().mean(dim=(1, 2, 3)) * weights.shape[1]
    assert torch.allclose(weights.sum(dim=1), change / (change + STILL))
    assert weights.sum(dim=1).median() > 0.9
    cells = torch.nn.functional.gelu(seen["cells"]).flatten(2)  # (M, channels, N)
    assert torch.allclose((cells @ weights[..., None])[..., 0], seen["pooled"], atol=1e-5)


def test_every_latent_shown_is_nearest_to_its_code_and_the_words_for_left_and_right_share_no_key():
    model = load_latent_action_model(WORLD / "latent_action_model.pt")
    game = Game("ALE/Breakout-v5")
    games = play_at_random(game, 300)
    played = encode_games(model, games)
    codes = model.quantizer.indices_to_codes(torch.arange(8)).detach()
    assert torch.equal(torch.cdist(played.latents, codes).argmin(dim=1), played.indices)
    frames, keys = games[0]
    assert torch.equal(played.indices[:3], model.encode(to_video(frames[None, :4])).indices[0])
    assert played.keys[:3].tolist() == keys[1:4].tolist()  # keys[0] is -1: no key led to the first frame
    for name, words in (("RIGHT", [0, 3]), ("LEFT", [4, 7])):
        pressed = played.keys[torch.isin(played.indices, torch.tensor(words))]
        assert {game.action_names[key] for key in pressed} == {name} and len(pressed) > 30


def test_a_world_without_a_game_gets_no_picture_of_latents(tmp_path, capsys):
    illustrate = load_script(REPOSITORY / "2.latent-action-model" / "lab" / "illustrate.py")
    for facts in ({}, {"env_id": "ALE/NoSuchGame-v5"}):
        model = load_latent_action_model(WORLD / "latent_action_model.pt")
        assert not illustrate.draw_latents(tmp_path / "latents.png", model, facts, 100)
        assert capsys.readouterr().out.startswith("latents.png is left out: ")


def test_a_loss_that_falls_does_not_tell_whether_the_codes_say_anything():
    trainings = read_json(REPOSITORY / "assets" / "2.latent-action-model" / "collapse.json")
    healthy, collapsed = (trainings[name]["curves"] for name in ("defaults", "collapsed"))
    for curves in (healthy, collapsed):
        loss = curves["logged"]["reconstruction"]
        assert np.mean(loss[-10:]) < 0.8 * loss[0]
    assert max(collapsed["logged"]["codes"][10:]) > 4  # restarted codes are in use, and say nothing
    for score, least, most in (("action_information_single", 0.15, 0.01), ("delta_moving_psnr_db", 4.0, 0.5)):
        assert min(healthy["validated"][score][4:]) > least  # from step 250 on
        assert max(collapsed["validated"][score][4:]) < most
