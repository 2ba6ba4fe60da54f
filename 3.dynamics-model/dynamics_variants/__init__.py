"""Published dynamics models with the interface of the main line. Each is documented as a difference from it."""

DYNAMICS: dict[str, str] = {
    "gpt": "dynamics_variants.gpt.model.GPT",
    "dreamer4": "dynamics_variants.dreamer4.model.Dreamer4Dynamics",
    "teco": "dynamics_variants.teco.model.TECO",
}
"""name -> class, imported when a checkpoint or a command line asks for it: the lesson imports no variant"""
