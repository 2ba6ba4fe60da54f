"""Pictures, videos and names as people have them are read as they are meant, or refused with the file's name."""

import cv2
import numpy as np

from video_tokenizer.data.video_files import read_image
from world_model.starts import read_picture


def test_a_picture_of_16_bits_starts_a_dream_as_it_is_trained_on(tmp_path):
    ramp = np.linspace(0, 255, 64).astype(np.uint16)[None].repeat(64, axis=0)
    cv2.imwrite(str(tmp_path / "grey16.png"), ramp * 257)
    cv2.imwrite(str(tmp_path / "grey8.png"), ramp.astype(np.uint8))
    assert np.array_equal(read_picture(tmp_path / "grey16.png"), read_picture(tmp_path / "grey8.png"))
    assert np.abs(read_picture(tmp_path / "grey16.png") - read_image(tmp_path / "grey16.png", (64, 64)).astype(int)).max() <= 1
