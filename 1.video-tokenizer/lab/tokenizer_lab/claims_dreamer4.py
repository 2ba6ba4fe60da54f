"""What the paper says of Dreamer 4's tokenizer (arXiv:2509.24527, section 3), as experiments of minutes on one CPU core.

What needs no comparison of trainings, such as that no pixel reaches the picture past the latents, is tested by interventions in
tests/variants/test_dreamer4.py.
"""

from tokenizer_lab.claims import Experiment

BASE = "--model dreamer4"
LONGER = f"{BASE} --num-steps 1600"  # what stands still is learned first; the past is looked at later
MASKS = {"nothing-hidden": f"{BASE} --largest-hidden-share 0", "up-to-nine-tenths": BASE}
SHOWN = ("psnr_db", "moving_psnr_db", "foreground_recall", "context_gain_db", "half_hidden_psnr_db")

EXPERIMENTS = [
    Experiment(
        name="dreamer4-context",
        claim="Causal attention over time compresses: half-hidden frames are drawn better with their past than alone.",
        source="Dreamer 4, section 3.1: said in words, without numbers",
        arms={
            "no-past": f"{LONGER} --context-frames 1",
            "two-frames-of-past": LONGER,
        },  # the gain of the control is 0 by construction
        metric="hidden_context_gain_db",
        direction="rises",
        also_shown=SHOWN,
    ),
    Experiment(
        name="dreamer4-masking",
        claim="A tokenizer trained on partly hidden frames fills in what it does not see.",
        source="Dreamer 4, section 3.1: said in words, without numbers",
        arms=MASKS,
        metric="half_hidden_psnr_db",
        direction="rises",
        also_shown=SHOWN,
    ),
    Experiment(
        name="dreamer4-masking-is-free",
        claim="Shares near 0 occur in training too, so whole frames are drawn as well as without masks (to half a decibel).",
        source="Dreamer 4, section 3.1: said in words, without numbers",
        arms=MASKS,
        metric="moving_psnr_db",
        direction="stays",
        tolerance=0.5,
        also_shown=SHOWN,
    ),
]
