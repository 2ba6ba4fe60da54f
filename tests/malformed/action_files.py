"""Action files that are no JSON, or JSON of another shape."""

from malformed.registry import add, written

ACTION_FILES = {
    "actions_missing": '{"seed": 1}',
    "actions_that_are_none": '{"actions": null}',
    "actions_of_no_length": "[]",
    "actions_with_a_fraction": "[1, 0.5]",
    "actions_with_a_list": "[[1], 2]",
    "actions_with_booleans": "[true, false]",
    "actions_that_are_a_number": "3",
    "actions_that_are_a_word": '"LEFT"',
    "actions_in_brackets": "[" * 100_000,
    "actions_in_no_json": "LEFT, RIGHT",
    "actions_with_a_seed_that_is_a_word": '{"actions": [1], "seed": "lucky"}',
    "actions_with_a_temperature_below_zero": '{"actions": [1], "temperature": -1}',
    "actions_with_a_temperature_that_is_no_number": '{"actions": [1], "temperature": NaN}',
    "actions_with_half_a_sampling_step": '{"actions": [1], "num_steps": 0.5}',
    "actions_with_changes_that_are_a_list": '{"actions": [1], "changes": [1]}',
    "actions_with_a_change_before_the_start": '{"actions": [1], "changes": {"-1": {"temperature": 1}}}',
    "actions_with_a_change_of_something_else": '{"actions": [1], "changes": {"0": {"speed": 1}}}',
    "actions_with_start_frames_that_are_a_number": '{"actions": [1], "start_frames": 5}',
    "actions_with_start_actions_that_are_words": '{"actions": [1], "start_actions": ["a"]}',
}
add("actions", {name: lambda folder, text=text: written(folder / "a.json", text) for name, text in ACTION_FILES.items()})
