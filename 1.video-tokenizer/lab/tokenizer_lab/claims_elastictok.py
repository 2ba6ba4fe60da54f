"""ElasticTok's claims (Yan, EECS-2024-193, chapter 4), as experiments of minutes on one CPU core."""

from tokenizer_lab.claims import Experiment

ELASTIC = "--model elastictok"
FIXED = {length: f"{ELASTIC} --kept-tokens {length}" for length in (16, 32, 64)}
"""the baselines: the same net with one length, of 64 tokens"""
SHOWN = ("tokens_at_24_db", "satisfied_at_24_db", "tokens_at_28_db", "satisfied_at_28_db", "satisfied_at_31_db", "psnr_db")

EXPERIMENTS = [
    Experiment(
        name="elastictok-tokens",
        claim="At the lax threshold a block needs half of the tokens of a fixed length, or fewer.",
        source="ElasticTok, figure 4.4: 3.5 and 1.3 times fewer on images, 5 and 2.4 times on video; most at the lax threshold",
        arms={"fixed-64": FIXED[64], "fixed-32": FIXED[32], "fixed-16": FIXED[16], "elastic": ELASTIC},
        metric="tokens_at_24_db",
        direction="falls",
        also_shown=SHOWN,
    ),
    Experiment(
        name="elastictok-satisfied",
        claim="More blocks reach a quality than with a quarter or half of the tokens always.",
        source="ElasticTok, table 4.1: 50, 88 and 99 % at .001, .003 and .015 on [-1, 1], half of the tokens 40, 78 and 99 %",
        arms={"fixed-16": FIXED[16], "fixed-32": FIXED[32], "elastic": ELASTIC},
        metric="satisfied_at_28_db",
        direction="rises",
        also_shown=SHOWN,
    ),
    Experiment(
        name="elastictok-order",
        claim="Dropping tails in training moves what matters to the front: half of the tokens draw a better picture.",
        source="ElasticTok, figure 4.5: the error falls as tokens grow; the control is a net that never dropped any",
        arms={"fixed-64": FIXED[64], "elastic": ELASTIC},
        metric="prefix_psnr_db_32_tokens",
        direction="rises",
        also_shown=(
            "prefix_psnr_db_16_tokens",
            "prefix_psnr_db_64_tokens",
            "random_psnr_db_32_tokens",
            "prefix_gain_db_32_tokens",
        ),
    ),
    Experiment(
        name="elastictok-prefix-or-random",
        claim="The first half of the tokens is worth more than as many at random places.",
        source="the control that the paper leaves out; without it a prefix might be as good as any other half",
        arms={"elastic": ELASTIC},
        metric="prefix_gain_db_32_tokens",
        direction="rises",
        also_shown=("prefix_gain_db_8_tokens", "prefix_gain_db_16_tokens", "prefix_gain_db_48_tokens"),
    ),
    Experiment(
        name="elastictok-context",
        claim="A block that sees blocks before it needs fewer tokens for the same quality.",
        source="ElasticTok, figure 4.6: better with longer context until about 100 frames",
        arms={
            "one-block": f"{ELASTIC} --context-blocks 1",
            "one-again": f"{ELASTIC} --context-blocks 1 --init-from {{one-block}}",
            "one-then-four": f"{ELASTIC} --context-blocks 4 --init-from {{one-block}}",
        },
        metric="tokens_at_28_db",
        direction="falls",
        also_shown=SHOWN,
    ),
    Experiment(
        name="elastictok-searches",
        claim="Six evaluations find nearly the length that trying all of them finds.",
        source="ElasticTok, table 4.4: full 0 %, 4,096 evaluations; binned 0.5 %, 100; binary 7 %, 12; regression 9 %, 1",
        arms={"elastic": ELASTIC},
        metric="binary_search_error_percent",
        direction="falls",
        bound=7.0,
        also_shown=("binned_search_error_percent", "regression_search_error_percent", "binary_search_evaluations"),
    ),
]
