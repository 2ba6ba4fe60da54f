"""What the papers claim of their tokenizers, as experiments of minutes on one CPU core. How they are read: claims.py.

What needs no comparison of trainings, such as that no pixel bypasses the latents, is tested by interventions in tests/variants/.
"""

from tokenizer_lab.claims import Experiment

# ---- codebooks: how much of one is used as it grows, FSQ against learned codes in the main line's tokenizer (2309.15505) ----

LEVELS = {64: "8 8", 256: "8 6 5", 1_024: "8 5 5 5", 4_096: "7 5 5 5 5", 16_384: "8 8 8 6 5"}
"""codes -> levels that make about as many, as the paper recommends: 64, 240, 1,000, 4,375 and 15,360"""
CODEBOOK_SCORES = ("codes_used", "perplexity", "psnr_db", "moving_psnr_db")

CODEBOOKS = [
    Experiment(
        name=f"codebook-usage-{codes}",
        claim=f"Of about {codes:,} codes FSQ uses a larger share than a learned codebook without help against idle codes.",
        source="FSQ, figure 3: about 100 % of FSQ's codes are in use up to 2^14; of VQ's under 50 % above 2^11; ImageNet",
        arms={"learned": f"--model st-vq --num-codes {codes} --restart-below 0", "fsq": f"--model st-fsq --levels {levels}"},
        metric="share_of_codes_used",
        also_shown=CODEBOOK_SCORES,
    )
    for codes, levels in LEVELS.items()
] + [
    Experiment(
        name="codebook-usage-restarts",
        claim="Restarts of idle codes bring most of a learned codebook into use.",
        source="VideoGPT, section 2.4: said in words, without numbers",
        arms={
            "no-restarts": "--model st-vq --num-codes 1024 --restart-below 0",
            "restarts": "--model st-vq --num-codes 1024",
        },
        metric="share_of_codes_used",
        also_shown=CODEBOOK_SCORES,
    )
]

# ---- VideoGPT (2104.10157) ----
# Its measure is NMSE, the mean squared error over the variance of the data. On the same validation frames that is the PSNR on
# another scale: NMSE = 10^(-PSNR / 10) / variance, so an NMSE lower by 20 % is a PSNR higher by 10 log10(1 / 0.8) = 0.97 dB.

VIDEOGPT_SCORES = ("psnr_db", "moving_psnr_db", "foreground_recall", "codes_used", "perplexity")

VIDEOGPT = [
    Experiment(
        name="videogpt-collapse",
        claim="Codes that start on data and restart when idle are used more evenly: at least 5 times the perplexity of neither.",
        source="VideoGPT, section 2.4: said in words, without numbers",
        arms={
            "neither": "--model videogpt --no-data-start --restart-below 0",
            "data-start": "--model videogpt --restart-below 0",
            "data-start-and-restarts": "--model videogpt",
        },
        metric="perplexity",
        also_shown=VIDEOGPT_SCORES,
    ),
    Experiment(
        name="videogpt-normalised-loss",
        claim="Without division by the variance the commitment outweighs the reconstruction: lower PSNR, fewer codes.",
        source="VideoGPT, section 2.4: said in words, without numbers",
        arms={"raw-error": "--model videogpt --no-normalise-loss", "error-over-variance": "--model videogpt"},
        metric="psnr_db",
        also_shown=VIDEOGPT_SCORES,
    ),
    Experiment(
        name="videogpt-axial-attention",
        claim="Axial attention reconstructs better than convolutions alone with the same number of parameters.",
        source="VideoGPT, table 2.3: NMSE 0.0041 without, 0.0033 with (-20 %); R-FVD 15.3 and 14.9; BAIR, 16 x 64 x 64 pixels",
        arms={
            "convolutions-only": "--model videogpt --axial-attention off",
            "axial-attention": "--model videogpt --axial-attention on",
        },
        metric="psnr_db",
        also_shown=(*VIDEOGPT_SCORES, "parameters"),
    ),
    Experiment(
        name="videogpt-codebook-size",
        claim="More codes reconstruct better.",
        source="VideoGPT, table 2.6: R-FVD 18.2, 14.9, 11.3 with 256, 1,024, 4,096 codes; samples no better (FVD 104); BAIR",
        # one threshold for all arms, low enough for the largest codebook: 2,048 latents a step are 2 for each of 1,024 codes
        arms={f"{number}-codes": f"--model videogpt --num-codes {number} --restart-below 0.5" for number in (64, 256, 1024)},
        metric="psnr_db",
        also_shown=VIDEOGPT_SCORES,
    ),
]

# ---- MAGVIT-2 (2310.05737) ----

BASE = "--model magvit2"
ADVERSARY = f"{BASE} --adversarial-weight 0.01"
LENGTHS = f"{BASE} --num-frames 9 --batch-size 4"  # 9 frames are 9, 5 or 3 steps; as many frames a batch as elsewhere
MAGVIT2_SCORES = ("psnr_db", "moving_psnr_db", "foreground_recall", "object_recall", "moving_sharpness")

MAGVIT2 = [
    Experiment(
        name="magvit2-causality",
        claim="A causal tokenizer reconstructs as well as one that also sees the future (to half a decibel).",
        source="MAGVIT-2: generation of UCF-101 with causal convolutions 96.33 FVD, with MAGVIT's that look ahead 107",
        arms={
            "looks-ahead": f"{BASE} --time-kernel 3 --no-causal",  # an even kernel cannot be split evenly
            "causal": f"{BASE} --time-kernel 3",
        },
        metric="moving_psnr_db",
        direction="stays",
        tolerance=0.5,
        also_shown=MAGVIT2_SCORES,
    ),
    Experiment(
        name="magvit2-discriminator-costs",
        claim="A discriminator costs decibels.",
        source="MAGVIT-2, as a codec: 26.2 dB where VVC has 32.7, with the better LPIPS, 0.104 against 0.153",
        arms={"without": BASE, "with": ADVERSARY},
        metric="psnr_db",
        direction="falls",
        also_shown=MAGVIT2_SCORES,
    ),
    Experiment(
        name="magvit2-discriminator-buys",
        claim="A discriminator makes moving things as sharp as they are in the video.",
        source="MAGVIT-2, the same two numbers; the distance of features stands for what people see",
        arms={"without": BASE, "with": ADVERSARY},
        metric="moving_sharpness",
        also_shown=MAGVIT2_SCORES,
    ),
    Experiment(
        name="magvit2-blur-pooling",
        claim="A discriminator that blurs before it drops every second value teaches more than one with strides.",
        source="MAGVIT-2, reconstruction of UCF-101: FVD from 8.90 to 8.62, LPIPS from 0.0542 to 0.0537",
        arms={"steps": f"{ADVERSARY} --no-blur-pool", "blur": ADVERSARY},
        metric="moving_psnr_db",
        also_shown=MAGVIT2_SCORES,
    ),
    Experiment(
        name="magvit2-features",
        claim="A distance of features keeps small things that a squared error loses.",
        source="MAGVIT-2: LPIPS with weight 0.1 in all its runs; here the frame-gap distance stands in, which is not LPIPS",
        arms={"without": BASE, "with": f"{BASE} --perceptual frame-gap --perceptual-weight 0.01"},
        metric="foreground_recall",
        also_shown=MAGVIT2_SCORES,
    ),
    Experiment(
        name="magvit2-time-stride",
        claim="Half or a quarter of the tokens cost little, because neighboring frames are alike (2 dB each).",
        source="MAGVIT-2: 17 frames in 5 steps; shortening time late instead of early: reconstruction FVD from 15.37 to 11.11",
        arms={f"{stride}-frames-a-step": f"{LENGTHS} --time-stride {stride}" for stride in (1, 2, 4)},
        metric="moving_psnr_db",
        direction="stays",
        tolerance=2.0,
        also_shown=MAGVIT2_SCORES,
    ),
]

# ---- Dreamer 4's tokenizer (2509.24527, section 3) ----

LONGER = "--model dreamer4 --num-steps 1600"  # what stands still is learned first; the past is used later
MASKS = {"nothing-hidden": "--model dreamer4 --largest-hidden-share 0", "up-to-nine-tenths": "--model dreamer4"}
DREAMER4_SCORES = ("psnr_db", "moving_psnr_db", "foreground_recall", "context_gain_db", "half_hidden_psnr_db")

DREAMER4 = [
    Experiment(
        name="dreamer4-context",
        claim="Causal attention over time compresses: half-hidden frames are reconstructed better with their past than alone.",
        source="Dreamer 4, section 3.1: said in words, without numbers",
        arms={
            "no-past": f"{LONGER} --context-frames 1",  # its gain is 0 by construction
            "two-frames-of-past": LONGER,
        },
        metric="hidden_context_gain_db",
        also_shown=DREAMER4_SCORES,
    ),
    Experiment(
        name="dreamer4-masking",
        claim="A tokenizer trained on partly hidden frames fills in what it does not see.",
        source="Dreamer 4, section 3.1: said in words, without numbers",
        arms=MASKS,
        metric="half_hidden_psnr_db",
        also_shown=DREAMER4_SCORES,
    ),
    Experiment(
        name="dreamer4-masking-is-free",
        claim="Shares near 0 occur in training, so unmasked frames look as good as without masks (to half a decibel).",
        source="Dreamer 4, section 3.1: said in words, without numbers",
        arms=MASKS,
        metric="moving_psnr_db",
        direction="stays",
        tolerance=0.5,
        also_shown=DREAMER4_SCORES,
    ),
]

# ---- ElasticTok (EECS-2024-193, chapter 4) ----

ELASTIC = "--model elastictok"
FIXED = {length: f"{ELASTIC} --kept-tokens {length}" for length in (16, 32, 64)}
"""the baselines: the same network with one length, of 64 tokens"""
ELASTIC_SCORES = (
    "tokens_at_24_db",
    "satisfied_at_24_db",
    "tokens_at_28_db",
    "satisfied_at_28_db",
    "satisfied_at_31_db",
    "psnr_db",
)

ELASTICTOK = [
    Experiment(
        name="elastictok-tokens",
        claim="At the lax threshold a block needs half of the tokens of a fixed length, or fewer.",
        source="ElasticTok, figure 4.4: 3.5 and 1.3 times fewer on images, 5 and 2.4 times on video; most at the lax threshold",
        arms={"fixed-64": FIXED[64], "fixed-32": FIXED[32], "fixed-16": FIXED[16], "elastic": ELASTIC},
        metric="tokens_at_24_db",
        direction="falls",
        also_shown=ELASTIC_SCORES,
    ),
    Experiment(
        name="elastictok-satisfied",
        claim="More blocks reach a quality than with a fixed quarter or half of the tokens.",
        source="ElasticTok, table 4.1: 50, 88 and 99 % at .001, .003 and .015 on [-1, 1], half of the tokens 40, 78 and 99 %",
        arms={"fixed-16": FIXED[16], "fixed-32": FIXED[32], "elastic": ELASTIC},
        metric="satisfied_at_28_db",
        also_shown=ELASTIC_SCORES,
    ),
    Experiment(
        name="elastictok-order",
        claim="Dropping tails in training moves what matters to the front: half of the tokens reconstruct better.",
        source="ElasticTok, figure 4.5: the error falls as tokens grow; the control is a network that never dropped any",
        arms={"fixed-64": FIXED[64], "elastic": ELASTIC},
        metric="prefix_psnr_db_32_tokens",
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
        also_shown=("prefix_gain_db_8_tokens", "prefix_gain_db_16_tokens", "prefix_gain_db_48_tokens"),
    ),
    Experiment(
        name="elastictok-context",
        claim="A block that sees the blocks before it needs fewer tokens for the same quality.",
        source="ElasticTok, figure 4.6: better with longer context until about 100 frames",
        arms={
            "one-block": f"{ELASTIC} --context-blocks 1",
            "one-again": f"{ELASTIC} --context-blocks 1 --init-from {{one-block}}",
            "one-then-four": f"{ELASTIC} --context-blocks 4 --init-from {{one-block}}",
        },
        metric="tokens_at_28_db",
        direction="falls",
        also_shown=ELASTIC_SCORES,
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

EXPERIMENTS = {one.name: one for one in (*CODEBOOKS, *VIDEOGPT, *MAGVIT2, *DREAMER4, *ELASTICTOK)}
