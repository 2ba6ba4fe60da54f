"""How much of a codebook is used, as it grows: FSQ against learned codes (arXiv:2309.15505), in the main line's tokenizer."""

from tokenizer_lab.claims import Experiment

LEVELS = {64: "8 8", 256: "8 6 5", 1_024: "8 5 5 5", 4_096: "7 5 5 5 5", 16_384: "8 8 8 6 5"}
"""codes -> levels that make about as many, as the paper recommends: 64, 240, 1,000, 4,375 and 15,360"""
PLAIN = "--no-data-start --restart-below 0"
SHOWN = ("codes_used", "perplexity", "psnr_db", "moving_psnr_db")

EXPERIMENTS = [
    Experiment(
        name=f"codebook-usage-{codes}",
        claim=f"Of about {codes:,} codes FSQ uses a larger share than a learned codebook, which has no help against idle codes.",
        source="FSQ, figure 3: about 100 % of FSQ's codes are in use up to 2^14; of VQ's under 50 % above 2^11; ImageNet",
        arms={"learned": f"--model st-vq --num-codes {codes} {PLAIN}", "fsq": f"--model st-fsq --levels {levels}"},
        metric="share_of_codes_used",
        direction="rises",
        also_shown=SHOWN,
    )
    for codes, levels in LEVELS.items()
] + [
    Experiment(
        name="codebook-usage-restarts",
        claim="A start on data and restarts of idle codes bring most of a learned codebook back into use.",
        source="VideoGPT, section 2.4: said in words, without numbers",
        arms={
            "neither": f"--model st-vq --num-codes 1024 {PLAIN}",
            "data-start-and-restarts": "--model st-vq --num-codes 1024",
        },
        metric="share_of_codes_used",
        direction="rises",
        also_shown=SHOWN,
    )
]
