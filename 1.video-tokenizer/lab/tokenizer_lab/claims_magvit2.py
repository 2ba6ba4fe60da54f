"""What MAGVIT-2 claims for its parts (arXiv:2310.05737), as experiments of minutes on one CPU core."""

from tokenizer_lab.claims import Experiment

BASE = "--model magvit2"
ADVERSARY = f"{BASE} --adversarial-weight 0.01"
LENGTHS = f"{BASE} --num-frames 9 --batch-size 4"  # 9 frames are 9, 5 or 3 steps; as many frames a batch as elsewhere
SHOWN = ("psnr_db", "moving_psnr_db", "foreground_recall", "object_recall", "moving_sharpness")

EXPERIMENTS = [
    Experiment(
        name="magvit2-causality",
        claim="A tokenizer that sees the past only draws as well as one that also sees the future (to half a decibel).",
        source="MAGVIT-2: generation of UCF-101 with causal convolutions 96.33 FVD, with MAGVIT's that look ahead 107",
        arms={
            "looks-ahead": f"{BASE} --time-kernel 3 --no-causal",  # an even kernel cannot be split evenly
            "causal": f"{BASE} --time-kernel 3",
        },
        metric="moving_psnr_db",
        direction="stays",
        tolerance=0.5,
        also_shown=SHOWN,
    ),
    Experiment(
        name="magvit2-discriminator-costs",
        claim="A discriminator costs decibels.",
        source="MAGVIT-2, as a codec: 26.2 dB where VVC has 32.7, with the better LPIPS, 0.104 against 0.153",
        arms={"without": BASE, "with": ADVERSARY},
        metric="psnr_db",
        direction="falls",
        also_shown=SHOWN,
    ),
    Experiment(
        name="magvit2-discriminator-buys",
        claim="A discriminator makes what moves as sharp as it is in the video.",
        source="MAGVIT-2, the same two numbers; the distance of features stands for what people see",
        arms={"without": BASE, "with": ADVERSARY},
        metric="moving_sharpness",
        direction="rises",
        also_shown=SHOWN,
    ),
    Experiment(
        name="magvit2-blur-pooling",
        claim="A discriminator that blurs before it drops every second value teaches more than one that takes steps.",
        source="MAGVIT-2, reconstruction of UCF-101: FVD from 8.90 to 8.62, LPIPS from 0.0542 to 0.0537",
        arms={"steps": f"{ADVERSARY} --no-blur-pool", "blur": ADVERSARY},
        metric="moving_psnr_db",
        direction="rises",
        also_shown=SHOWN,
    ),
    Experiment(
        name="magvit2-features",
        claim="A distance of features keeps small things that a squared error lets go.",
        source="MAGVIT-2: LPIPS with weight 0.1 in all its runs; here the frame-gap distance stands in, which is not LPIPS",
        arms={"without": BASE, "with": f"{BASE} --perceptual frame-gap --perceptual-weight 0.01"},
        metric="foreground_recall",
        direction="rises",
        also_shown=SHOWN,
    ),
    Experiment(
        name="magvit2-time-stride",
        claim="Half or a quarter of the tokens cost little, since neighbouring frames are alike (2 dB each).",
        source="MAGVIT-2: 17 frames in 5 steps; shortening time late instead of early: reconstruction FVD from 15.37 to 11.11",
        arms={f"{stride}-frames-a-step": f"{LENGTHS} --time-stride {stride}" for stride in (1, 2, 4)},
        metric="moving_psnr_db",
        direction="stays",
        tolerance=2.0,
        also_shown=SHOWN,
    ),
]
