"""What a recording must share with the world that is used with it."""

from video_tokenizer.data.clip_store import ClipStore, check_light
from video_tokenizer.errors import InputError
from video_tokenizer.training.config import size_text
from world_model.world import WorldModel


def check_recording(store: ClipStore, world: WorldModel, same_size: bool = True) -> None:
    """Raise InputError for a clip store of another game than the world's, or whose frames were shrunk in another way.

    Videos and dummy data may be of any game. same_size: refuse frames of another size as well.
    """
    here, there = ((env_id or "").removeprefix("ale_py:") for env_id in (store.env_id, world.metadata.env_id))
    if here and there and here != there:
        raise InputError(f"{store.path} was recorded from {here}, not {there}; record the world's game")
    if same_size and store.frame_size != world.frame_size:
        here, there = size_text(store.frame_size), size_text(world.frame_size)
        raise InputError(
            f"{store.path} has frames of --frame-size {here}, not {there} like the world; record it with the world's"
        )
    check_light("the world", world.metadata.linear_light, store)
