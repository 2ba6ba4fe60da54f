"""The scores that an evaluation of a world reports, and the controls beside them."""

NAMES = {  # what every evaluation of a game's world reports
    "psnr_db", "copy_last_psnr_db", "moving_psnr_db", "foreground_recall", "object_recall", "codes_used", "perplexity",
    "shuffle_ratio", "delta_psnr_db", "obedience", "rollout", "long_dream", "frames_per_second", "p95_ms",
}  # fmt: skip
NAMES_OF_LATENT_ACTIONS = {
    "action_information", "action_information_single", "supervised_information", "action_information_ratio",
    "mapping_accuracy", "supervised_accuracy", "mapping_accuracy_ratio",
}  # fmt: skip
CONTROLS = {  # what stands beside them
    "untrained": {"psnr_db", "moving_psnr_db", "shuffle_ratio", "delta_psnr_db", "obedience", "rollout", "long_dream"},
    "copy_last": {"psnr_db", "moving_psnr_db", "obedience", "rollout", "long_dream"},
}
